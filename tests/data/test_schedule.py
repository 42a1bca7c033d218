import doctest
import json
from collections import Counter

import numpy as np
import pytest

from sari_jax.data import schedule as module
from sari_jax.data.curriculum import ADAPTIVE, Curriculum, order
from sari_jax.data.schedule import FLOOR, SPEED, alike, make_schedule, mixed
from sari_jax.errors import InputError


@pytest.fixture
def records(make_record):
    def make(count: int, **changes):
        return [
            make_record(
                id=f"r{i}", pass_rate=(i % 17) / 16, source="ab"[i % 2] + str(i % 3), **changes
            )
            for i in range(count)
        ]

    return make


def test_the_example_in_its_docstrings():
    failed, tried = doctest.testmod(module)
    assert tried == 2 and not failed


def plan(records, curriculum, batch_size=4, seed=0, **more):
    return make_schedule(records, curriculum, batch_size=batch_size, seed=seed, **more)


def test_any_batch_is_known_at_once(records):
    some = records(50)
    schedule = plan(some, Curriculum(order="easy_to_hard"))
    sequence = 3 * order(some, "easy_to_hard", 0)
    for batch in (0, 7, 30, 12):
        assert schedule[batch] == sequence[4 * batch : 4 * batch + 4]
    start, end = schedule.plan(30)[1:]
    assert start == 0 and end > 10**12


def test_a_window_brings_clips_of_like_length_together(records):
    some, lengths = records(64), np.random.default_rng(0).integers(4, size=64)
    plain = plan(some, Curriculum(order="easy_to_hard"), lengths=lengths)
    windowed = plan(some, Curriculum(order="easy_to_hard", window=4), lengths=lengths)

    def spread(schedule):
        return sum(len(set(lengths[schedule[b]])) for b in range(16))

    assert spread(windowed) < spread(plain) / 1.5
    for start in range(0, 16, 4):  # and none leaves its window
        before, after = (
            sorted(index for batch in range(start, start + 4) for index in schedule[batch])
            for schedule in (plain, windowed)
        )
        assert before == after
    plain = plan(some, Curriculum(order="easy_to_hard"))
    same = plan(some, Curriculum(order="easy_to_hard", window=4), lengths=np.zeros(64, int))
    assert [same[batch] for batch in range(16)] == [plain[batch] for batch in range(16)]


def test_batches_of_a_window_keep_the_order_that_their_questions_had():
    lengths = np.array([2, 1, 2, 1, 1, 2])
    assert alike([0, 1, 2, 3, 4, 5], 3, lengths) == [[0, 2, 5], [1, 3, 4]]
    assert alike([1, 3, 0, 4, 2, 5], 3, lengths) == [[1, 3, 4], [0, 2, 5]]


def test_sources_have_their_shares_and_each_goes_from_easy_to_hard(records):
    some = records(60)
    schedule = plan(some, Curriculum(order="easy_to_hard", mix=("a*=3", "b*=1")), batch_size=8)
    seen = [index for batch in range(5) for index in schedule[batch]]
    shares = Counter(some[index].source[0] for index in seen)
    assert shares == {"a": 30, "b": 10}
    for letter in "ab":
        rates = [some[n].pass_rate for n in seen if some[n].source[0] == letter]
        assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    "mix, match",
    [
        (("a*=3",), "record r1 is of source 'b1', which no pattern matches"),
        (("*=1", "c*=1"), "no record is of source 'c\\*'"),
        (("a*",), "does not read SOURCE=WEIGHT"),
        (("a*=0",), "does not read SOURCE=WEIGHT"),
        (("a*=many",), "does not read SOURCE=WEIGHT"),
        (("=1",), "does not read SOURCE=WEIGHT"),
    ],
)
def test_a_mix_that_does_not_go_with_the_records(records, mix, match):
    with pytest.raises(InputError, match=match):
        mixed(records(6), mix)


def test_adaptive_draws_what_is_neither_solved_nor_hopeless(make_record):
    rates = [0.0] * 300 + [1.0] * 300 + [0.5] * 300
    some = [make_record(id=str(i), pass_rate=rate) for i, rate in enumerate(rates)]
    batches, start, end = plan(some, Curriculum(order=ADAPTIVE, refresh=25)).plan(0)
    assert (len(batches), start, end) == (25, 0, 25)
    drawn = [index for batch in batches for index in batch]
    assert len(set(drawn)) == 100  # none twice within a draw
    between = sum(index >= 600 for index in drawn)
    expected = 100 * (0.25 + FLOOR) / (0.25 + 3 * FLOOR)
    assert between == pytest.approx(expected, abs=12)


def test_adaptive_follows_the_rollouts(make_record):
    some = [make_record(id=str(i)) for i in range(8)]
    schedule = plan(some, Curriculum(order=ADAPTIVE, refresh=3), batch_size=2)
    schedule.plan(0)
    for rates in ([1, 1], [0, 1], [0, 0]):
        schedule.learn([0, 1], rates)
    schedule.plan(3)
    # The third batch may still be under way when the next are drawn.
    once = 0.5 + SPEED * 0.5
    assert schedule.state()["rates"] == [[0, once * (1 - SPEED)], [1, once + SPEED * (1 - once)]]
    assert schedule.state()["pending"] == [[2, [0, 1], [0.0, 0.0]]]


@pytest.mark.parametrize("behind", [0, 1], ids=["in turn", "overlapping"])
def test_adaptive_goes_on_exactly_from_any_batch(records, behind):
    """Also where each batch is drawn before the last one's rollouts are known."""
    some, curriculum = records(40), Curriculum(order=ADAPTIVE, refresh=4, mix=("a*=1", "b*=2"))

    def run(schedule, first: int, last: int, seen: list) -> None:
        for step in range(first, last):
            for batch in range(step, step + 1 + behind):
                batches, start, _ = schedule.plan(batch)
                seen.append((batch, batches[batch - start]))
            indices = [n for batch, indices in seen if batch == step for n in indices[:1]][:1]
            schedule.learn(indices, [(step % 5) / 4] * len(indices))

    whole, parts, state = [], [], None
    straight = plan(some, curriculum, batch_size=4, seed=3)
    run(straight, 0, 20, whole)
    for stop in (0, 3, 4, 5, 11, 20):
        schedule = plan(some, curriculum, batch_size=4, seed=3)
        first = parts[-1][0] + 1 - behind if parts else 0
        if state:
            schedule.set_state(json.loads(json.dumps(state)))
        run(schedule, first, stop, parts)
        state = schedule.state()
    assert parts == whole
    assert len({str(indices) for _, indices in whole}) > 15


def test_adaptive_needs_no_pass_rate_and_an_order_does(make_record):
    some = [make_record(id=str(i)) for i in range(8)]
    assert len(plan(some, Curriculum(order=ADAPTIVE)).plan(0).batches[0]) == 4
    with pytest.raises(InputError, match="8 of 8 records have no pass_rate"):
        plan(some, Curriculum(order="staged"))
