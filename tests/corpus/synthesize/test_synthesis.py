import json
import time

import endpoints
import pytest

from sari_jax.corpus.captions import Caption
from sari_jax.corpus.folder import write_corpus
from sari_jax.corpus.synthesize.budget import Budget, Limits
from sari_jax.corpus.synthesize.cache import Cache
from sari_jax.corpus.synthesize.endpoint import FAILED, FAILING, SPENT, Endpoint, Settings
from sari_jax.corpus.synthesize.synthesis import (
    NOTHING_KNOWN,
    UNFINISHED,
    Writer,
    by_place,
    captions_of,
)
from sari_jax.data.ledger import Ledger
from sari_jax.data.records import Clip
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError

pytest.importorskip("openai")


def caption(i: int, text: str | None = "", **changes) -> Caption:
    said = f"{'one two three four five six seven eight'.split()[i % 8]} bells, take {i}"
    fields = {"id": f"clip{i}", "audio": (Clip(f"/sounds/{i}.wav"),), "task": "sound"}
    fields |= {"source": "made up", "licence": "CC0-1.0", "caption": said if text == "" else text}
    return Caption(**fields | changes)


@pytest.fixture
def server():
    with endpoints.serving() as server:
        yield server


@pytest.fixture
def writing(server, tmp_path):
    """A function that makes a writer who asks the small server."""

    def make(*, limits: Limits = Limits(), settings: dict | None = None, **rest) -> Writer:
        chosen = Settings(url=server.url, model="m", **({"retries": 0} | (settings or {})))
        cache = Cache(tmp_path / "cache")
        budget = Budget(limits, cache.replies(chosen.model))
        return Writer(endpoint=Endpoint(chosen, cache, budget), **rest)

    return make


def test_captions_become_records(writing, server):
    ledger, captions = Ledger(), [caption(i) for i in range(10)]
    records = writing().questions(captions, ledger)
    assert ledger.report() == {"read": 10, "kept": 10, "dropped": {}}
    assert [record.id for record in records] == [c.id for c in captions]
    for record, given in zip(records, captions, strict=True):
        assert record.choices[record.answer_index] == given.caption
        assert (record.audio, record.licence) == (given.audio, given.licence)
        for style in STYLES.values():
            assert style.matches(style.render(record))
    assert sorted(by_place(records)) == [2, 2, 3, 3]
    assert len(server.bodies) == 30 and 1 < server.most_at_once <= 8


def test_again_it_asks_for_nothing_and_gives_the_same(writing, server):
    captions = [caption(i) for i in range(6)]
    first = writing().questions(captions, Ledger())
    again = writing(concurrency=1)
    assert again.questions(captions, Ledger()) == first
    assert len(server.bodies) == again.endpoint.cached == 18 and again.endpoint.sent == 0


def test_which_captions_pass_changes_nothing_that_is_asked(writing, server):
    writing().questions([caption(i) for i in range(8)], Ledger())
    fewer = writing()
    fewer.questions([caption(i) for i in range(3, 8)], Ledger())
    assert fewer.endpoint.sent == 0


@pytest.mark.parametrize("chains, asked", [(("structured",), 2), (("free",), 2), ((), 1)])
def test_only_the_chains_that_are_wanted(writing, server, chains, asked):
    (record,) = writing(chains=chains).questions([caption(0)], Ledger())
    assert (record.chain_structured is not None) == ("structured" in chains)
    assert (record.chain_free is not None) == ("free" in chains)
    assert len(server.bodies) == asked


def test_labels_stand_in_for_a_caption_and_nothing_for_both(writing, server):
    ledger = Ledger()
    captions = [
        caption(0, None, labels=("a lone bell",)),
        caption(1, None),
        caption(2, "  "),
    ]
    (record,) = writing(chains=()).questions(captions, ledger)
    assert record.choices[record.answer_index] == "a lone bell"
    assert ledger.report()["dropped"] == {NOTHING_KNOWN: 2} and len(server.bodies) == 1


def test_what_fails_its_checks_is_asked_again_with_the_next_seed(writing, server):
    calls = []

    def second_is_good(prompt: str) -> str:
        calls.append(prompt)
        return endpoints.good(prompt) if len(calls) > 1 else '{"question": "What'

    server.write = second_is_good
    ledger = Ledger()
    assert writing(seed=5, chains=()).questions([caption(0)], ledger)
    first, second = [body["seed"] for body in server.bodies]
    assert second == first + 1 and server.bodies[0]["messages"] == server.bodies[1]["messages"]
    again = writing(seed=5, chains=())
    again.questions([caption(0)], Ledger())
    assert again.endpoint.sent == 0, "the bad reply was kept too"


@pytest.mark.parametrize(
    "broken, reason",
    [
        ("question", "question: not a JSON object"),
        ("structured", "structured chain: not a JSON object"),
        ("free", "free chain: does not end in the right answer"),
    ],
)
def test_what_never_passes_is_kept_with_the_models_words(writing, server, broken, reason):
    def write(prompt: str) -> str:
        kind = "structured" if '"planning"' in prompt else "question"
        kind = "free" if "running text" in prompt else kind
        return "I would rather not." if kind == broken else endpoints.good(prompt)

    server.write = write
    ledger = Ledger()
    assert writing().questions([caption(0)], ledger) == []
    (dropped,) = ledger.dropped
    assert (dropped.where, dropped.reason) == ("clip0", reason)
    assert dropped.detail.endswith("the model wrote: I would rather not.")
    before = {"question": 0, "structured": 1, "free": 2}[broken]
    assert len(server.bodies) == before + 3


def test_without_temperature_it_is_asked_once(writing, server, monkeypatch):
    monkeypatch.setattr(server, "write", lambda _: "no")
    writing(settings={"temperature": 0.0}).questions([caption(0)], Ledger())
    assert len(server.bodies) == 1


@pytest.mark.parametrize("finish", UNFINISHED)
def test_a_reply_that_was_not_finished_is_no_reply(writing, server, finish):
    server.finish = finish
    ledger = Ledger()
    writing(attempts=2).questions([caption(0)], ledger)
    assert ledger.report()["dropped"] == {f"question: {UNFINISHED[finish]}": 1}
    assert len(server.bodies) == 2


def test_of_the_same_caption_each_clip_gets_its_own_question(writing, server):
    writing(chains=()).questions([caption(i, "Music.") for i in range(3)], Ledger())
    assert len({body["seed"] for body in server.bodies}) == 3
    writing(chains=(), seed=1).questions([caption(0, "Music.")], Ledger())
    assert len({body["seed"] for body in server.bodies}) == 4


def test_every_caption_is_accounted_for_whatever_goes_wrong(writing, server):
    # 24 faults: whichever captions they meet, 6 of 30 at least are kept.
    server.faults = [500, "ok", "malformed", "cut", "ok", "empty", 400, "ok", 503] * 4
    ledger, captions = Ledger(), [caption(i) for i in range(30)]
    records = writing(concurrency=3).questions(captions, ledger)
    kept, dropped = {r.id for r in records}, {d.where for d in ledger.dropped}
    assert kept and dropped and not kept & dropped
    assert kept | dropped == {c.id for c in captions} and ledger.read == 30
    assert all(drop.reason == FAILED for drop in ledger.dropped)
    server.faults, more = [], Ledger()
    assert len(writing().questions(captions, more)) == 30, "what failed was not kept as an answer"


def test_an_endpoint_that_dies_leaves_what_it_said(writing, server):
    server.faults = ["ok"] * 9 + [500] * 1000
    ledger, captions = Ledger(), [caption(i) for i in range(40)]
    records = writing(concurrency=1).questions(captions, ledger)
    assert len(records) == 3
    assert ledger.report()["dropped"] == {FAILING: 27, FAILED: 10}


def test_an_endpoint_that_never_answers_is_an_error(writing, server):
    server.faults = [500] * 100
    with pytest.raises(InputError, match="no request was answered; request failed: 500"):
        writing().questions([caption(0)], Ledger())


def test_a_refused_key_stops_all_at_once(writing, server):
    server.faults = ["ok"] * 3 + [401] * 1000
    with pytest.raises(InputError, match="refuses the key"):
        writing(concurrency=2).questions([caption(i) for i in range(500)], Ledger())
    assert len(server.bodies) < 20


def test_the_limit_and_how_it_goes_on(writing, server):
    captions = [caption(i) for i in range(10)]
    ledger = Ledger()
    limited = {"limits": Limits(tokens=1500), "concurrency": 2}
    first = writing(**limited).questions(captions, ledger)
    asked = len(server.bodies)
    assert 13 <= asked <= 14, "120 tokens each, and at most one more under way"
    assert ledger.report()["dropped"] == {SPENT: 10 - len(first)}
    again = Ledger()
    assert writing(**limited).questions(captions, again) == first
    assert len(server.bodies) == asked, "the same limit counts what was spent before"
    assert len(writing().questions(captions, Ledger())) == 10
    assert len(server.bodies) == 30


def test_the_limit_lets_what_is_under_way_come_in(writing, server):
    server.pause = 0.1
    ledger = Ledger()
    writing(limits=Limits(tokens=1), concurrency=4, chains=()).questions(
        [caption(i) for i in range(9)], ledger
    )
    assert len(server.bodies) == 4 and ledger.kept == 4


def test_records_get_the_chains_they_lack(writing, server, make_record):
    records = [
        make_record(id="both", choices=("one", "two"), answer_index=1),
        make_record(id="none", chain_structured=None, chain_free=None),
        make_record(id="half", chain_free=None),
    ]
    ledger = Ledger()
    known = {"none": caption(3)}
    both, none, half = writing().chained(records, known, ledger)
    assert both == records[0] and half.chain_structured == records[2].chain_structured
    assert none.chain_structured["summary"] == "So what I hear is dog."
    assert (none.choices, none.answer_index) == (records[1].choices, 1)
    assert half.chain_free and ledger.kept == 3 and len(server.bodies) == 3
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    assert sum("four bells, take 3" in prompt for prompt in prompts) == 2


def test_captions_are_of_the_same_sound_or_else_of_the_same_id(make_record):
    a, b = Clip("/sounds/a.wav"), Clip("/sounds/b.wav")
    beats = [Clip("/sounds/a.wav", 0.0, 1.0), Clip("/sounds/a.wav", 1.0, 2.0)]
    captions = [
        caption(0, audio=(a,), id="a"),
        caption(1, audio=(b,), id="b"),
        caption(2, audio=(b,), id="b-again"),
        caption(3, audio=(a, b), id="both"),
        caption(4, audio=(beats[0],), id="a-first"),
        caption(5, id="packed"),
    ]
    wanted = {
        "a-key": ((a,), "a"),
        "b-emotion": ((Clip("/sounds/../sounds/b.wav"),), "b"),
        "b-again": ((b,), "b-again"),
        "a": ((a, b), "both"),  # an id that another sound has
        "a-0": ((beats[0],), "a-first"),
        "packed": ((Clip("/packed/clips.arrayrecord#3"),), "packed"),
        "a-1": ((beats[1],), None),
        "b-a": ((b, a), None),
    }
    records = [make_record(id=name, audio=audio) for name, (audio, _) in wanted.items()]
    found = {name: known.id for name, known in captions_of(records, captions).items()}
    assert found == {name: known for name, (_, known) in wanted.items() if known}


def test_half_a_character_costs_its_question_and_nothing_else(writing, server, tmp_path):
    def write(prompt: str) -> str:
        return endpoints.good(prompt).replace(
            "hooting", r"\ud800" if "take 1" in prompt else "wise"
        )

    server.write = write
    ledger = Ledger()
    records = writing(chains=()).questions([caption(i) for i in range(3)], ledger)
    report = write_corpus(tmp_path / "out", ledger, records)
    assert report["dropped"] == {"question: not a JSON object": 1} and report["kept"] == 2


def test_records_whose_chains_fail_are_dropped(writing, server, make_record, monkeypatch):
    monkeypatch.setattr(server, "write", lambda _: json.dumps({"planning": "?"}))
    ledger = Ledger()
    assert writing().chained([make_record(chain_structured=None)], {}, ledger) == []
    assert ledger.report()["dropped"] == {"structured chain: sections are incomplete": 1}


def test_requests_go_side_by_side(writing, server):
    server.pause = 0.2
    begun = time.perf_counter()
    writing(concurrency=8, chains=()).questions([caption(i) for i in range(16)], Ledger())
    assert time.perf_counter() - begun < 16 * 0.2 / 3 and server.most_at_once == 8
