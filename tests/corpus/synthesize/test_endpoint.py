import sys
import time

import endpoints
import pytest

from sari_jax.corpus.synthesize.budget import Budget, Limits
from sari_jax.corpus.synthesize.cache import Cache
from sari_jax.corpus.synthesize.endpoint import (
    FAILED,
    FAILING,
    LONGEST,
    MALFORMED,
    PATIENCE,
    SPENT,
    Endpoint,
    NoReply,
    Settings,
)
from sari_jax.data.ledger import Drop
from sari_jax.errors import InputError

pytest.importorskip("openai")
KEY = "sk-very-secret"
PROMPT = "Content: a dog barks"


@pytest.fixture
def server():
    with endpoints.serving() as server:
        yield server


@pytest.fixture
def asking(server, tmp_path):
    """A function that makes an endpoint of ours, which asks the small server."""

    def make(*, limits: Limits = Limits(), key: str = KEY, **settings) -> Endpoint:
        chosen = Settings(url=server.url, model="m", **({"retries": 2} | settings))
        return Endpoint(chosen, Cache(tmp_path / "cache"), Budget(limits), key)

    return make


def test_a_reply_is_asked_for_once(asking, server):
    ours = asking()
    first, again = ours.ask(PROMPT, 0), ours.ask(PROMPT, 0)
    assert first == again and first.completion_tokens == 20
    assert (len(server.bodies), ours.sent, ours.cached) == (1, 1, 1)
    assert server.keys == [f"Bearer {KEY}"]
    (body,) = server.bodies
    assert {"model", "messages", "temperature", "max_tokens", "seed"} == set(body)
    asking().ask(PROMPT, 0)
    assert len(server.bodies) == 1
    asking(length_field="max_completion_tokens").ask(PROMPT, 0)
    assert "max_completion_tokens" in server.bodies[-1]


def test_429_waits_as_long_as_it_is_told_to(asking, server):
    server.faults = [429]
    begun = time.perf_counter()
    assert asking().ask(PROMPT, 0).text
    assert time.perf_counter() - begun > 1 and len(server.bodies) == 2


def test_500s_are_asked_again(asking, server):
    server.faults = [500, 503]
    assert asking().ask(PROMPT, 0).text
    assert len(server.bodies) == 3


def test_an_answer_that_breaks_off_is_asked_again(asking, server):
    server.faults = ["cut"]
    assert asking().ask(PROMPT, 0).text
    assert len(server.bodies) == 2


def test_a_slow_answer_is_given_up(asking, server):
    server.faults = ["slow"]
    assert asking(timeout=0.3).ask(PROMPT, 0).text
    server.faults = ["slow"] * 9
    with pytest.raises(NoReply, match="no answer within 0.3 s") as caught:
        asking(timeout=0.3, retries=0).ask(PROMPT, 1)
    assert caught.value.reason == FAILED


@pytest.mark.parametrize("fault", ["malformed", "empty"])
def test_what_is_no_completion_is_not_kept(asking, server, fault):
    server.faults = [fault]
    ours = asking()
    with pytest.raises(Drop) as caught:
        ours.ask(PROMPT, 0)
    assert caught.value.reason == MALFORMED and not isinstance(caught.value, NoReply)
    assert ours.ask(PROMPT, 0).text and ours.cached == 0


def test_what_always_fails_is_sent_no_more(asking, server):
    server.faults = [500] * 1000
    ours = asking(retries=0)
    for seed in range(PATIENCE):
        with pytest.raises(NoReply) as caught:
            ours.ask(PROMPT, seed)
        assert caught.value.reason == FAILED
    with pytest.raises(NoReply) as caught:
        ours.ask(PROMPT, PATIENCE)
    assert caught.value.reason == FAILING and len(server.bodies) == PATIENCE
    assert ours.failed == PATIENCE
    with pytest.raises(InputError, match="no request was answered; request failed: 500"):
        ours.check()


def test_what_is_never_a_completion_is_asked_no_more(asking, server):
    server.faults = ["empty"] * 1000
    ours = asking()
    for seed in range(PATIENCE):
        with pytest.raises(Drop):
            ours.ask(PROMPT, seed)
    with pytest.raises(NoReply, match="not a chat completion"):
        ours.ask(PROMPT, PATIENCE)
    with pytest.raises(InputError, match="no request was answered; reply is not a chat"):
        ours.check()


def test_one_success_between_failures_is_patience_anew(asking, server):
    server.faults = [500] * (PATIENCE - 1) + ["ok"] + [500] * (PATIENCE - 1)
    ours = asking(retries=0)
    for seed in range(2 * PATIENCE - 1):
        if seed == PATIENCE - 1:
            assert ours.ask(PROMPT, seed).text
        else:
            with pytest.raises(NoReply):
                ours.ask(PROMPT, seed)
    assert ours.ask(PROMPT, 99).text
    ours.check()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_it_and_is_not_told(asking, server, status):
    server.faults = [status]
    with pytest.raises(InputError, match=f"refuses the key .{status}") as caught:
        asking().ask(PROMPT, 0)
    assert KEY not in str(caught.value) and len(server.bodies) == 1


def test_after_a_refusal_nothing_is_sent(asking, server):
    server.faults = [401]
    ours = asking()
    for seed in (0, 1):
        with pytest.raises(InputError, match="refuses the key"):
            ours.ask(PROMPT, seed)
    assert len(server.bodies) == 1


def test_not_found_ends_it(asking, server):
    server.faults = [404]
    with pytest.raises(InputError, match="--endpoint.* or --model m") as caught:
        asking().ask(PROMPT, 0)
    assert KEY not in str(caught.value)


def test_a_refused_request_is_not_repeated(asking, server):
    server.faults = [400]
    with pytest.raises(NoReply, match="400: .*Bearer \\*\\*\\*"):
        asking().ask(PROMPT, 0)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("key", ["sk-it's\\secret", 'sk-"secret"', KEY + " \n"])
@pytest.mark.parametrize("fault", [400, "two"])
def test_whoever_repeats_the_key_it_is_not_told(asking, server, tmp_path, key, fault):
    server.faults, server.write = [fault], lambda _: "a dog"
    ours = asking(key=key)
    with pytest.raises(Drop) as caught:
        ours.ask(PROMPT, 0)
    told = f"{caught.value}{ours._failure}"
    assert server.keys == [f"Bearer {key.strip()}"] and "secret" not in told
    assert "Bearer ***" in told
    assert all("secret" not in path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("fault", [400, "two"])
def test_a_long_message_is_cut(asking, server, fault):
    server.faults, server.write = [fault], lambda _: "a dog, " * 500
    with pytest.raises(Drop) as caught:
        asking().ask(PROMPT, 0)
    assert LONGEST <= len(str(caught.value)) <= LONGEST + len("400: ")


@pytest.mark.parametrize("key", ["sk-sécret", "sk-\nsecret", "sk-\x00secret", "sk secret"])
def test_what_can_be_no_key_is_refused_unseen(asking, key):
    with pytest.raises(InputError, match="--api-key-env names") as caught:
        asking(key=key)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "me:secret@host/v1"])
def test_an_address_with_a_password_is_refused_unseen(tmp_path, url):
    with pytest.raises(InputError, match="no user name, password") as caught:
        Endpoint(Settings(url=url, model="m"), Cache(tmp_path), Budget())
    assert "secret" not in str(caught.value)


def test_the_key_is_not_in_the_cache(asking, tmp_path):
    asking().ask(PROMPT, 0)
    (entry,) = (tmp_path / "cache").rglob("*.json")
    assert KEY not in entry.read_text() and "127.0.0.1" not in entry.read_text()


def test_at_the_limit_only_the_cache_answers(asking, server):
    ours = asking(limits=Limits(tokens=200))
    ours.ask(PROMPT, 0)
    ours.ask(PROMPT, 1)  # 120 of 200 are spent: this one may go
    with pytest.raises(NoReply) as caught:
        ours.ask(PROMPT, 2)
    assert caught.value.reason == SPENT and len(server.bodies) == 2
    assert ours.ask(PROMPT, 1).text


def test_what_is_no_completion_is_paid_for_all_the_same(asking, server):
    server.faults = ["two", "two", "empty"]
    ours = asking(limits=Limits(tokens=240))
    for seed in (0, 0):
        with pytest.raises(Drop) as caught:
            ours.ask(PROMPT, seed)
        assert caught.value.reason == MALFORMED
    assert (ours.budget.prompt_tokens, ours.budget.completion_tokens) == (200, 40)
    with pytest.raises(NoReply) as caught:
        ours.ask(PROMPT, 0)
    assert caught.value.reason == SPENT and len(server.bodies) == 2
    assert Budget(Limits(), ours.cache.replies("m")).tokens == 240, "another run knows it too"
    free = asking()
    with pytest.raises(Drop):
        free.ask(PROMPT, 0)
    assert free.budget.tokens == 0


def test_where_nobody_counts_tokens_they_are_estimated(asking, server):
    server.usage = False
    reply = asking().ask(PROMPT, 0)
    assert reply.prompt_tokens == len(PROMPT) / 4
    assert reply.completion_tokens == pytest.approx(len(reply.text) / 4, abs=1)


def test_half_a_character_becomes_a_question_mark(asking, server, monkeypatch):
    monkeypatch.setattr(server, "write", lambda _: "\ud83d bark")
    assert asking().ask(PROMPT, 0).text == "? bark"


def test_nobody_there(tmp_path):
    settings = Settings(url="http://127.0.0.1:9/v1", model="m", retries=0)
    ours = Endpoint(settings, Cache(tmp_path), Budget())
    with pytest.raises(NoReply, match="refused"):
        ours.ask(PROMPT, 0)
    with pytest.raises(InputError, match="127.0.0.1:9/v1: no request was answered"):
        ours.check()


def test_an_address_that_is_none(tmp_path):
    with pytest.raises(InputError, match="'localhost:8000': must start with http"):
        Endpoint(Settings(url="localhost:8000", model="m"), Cache(tmp_path), Budget())


def test_without_the_client_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(
        InputError, match=r"synthesize needs openai; pip install 'sari_jax\[corpus\]'"
    ):
        Endpoint(Settings(url="http://127.0.0.1:9/v1", model="m"), Cache(tmp_path), Budget())
