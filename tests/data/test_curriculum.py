import pytest

from sari_jax.data.curriculum import ORDERS, drop, order
from sari_jax.errors import InputError

RATES = [0.5, 1.0, 0.0, 0.5, 0.25, 0.5, 0.5, 0.5]


@pytest.fixture
def records(make_record):
    return [make_record(id=f"r{i}", pass_rate=rate) for i, rate in enumerate(RATES)]


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_holds_every_number_once_and_only_the_seed_changes_it(name, records):
    indices = order(records, name, seed=0)
    assert sorted(indices) == list(range(len(records)))
    assert order(records, name, seed=0) == indices
    if name != "as_written":
        assert len({tuple(order(records, name, seed=seed)) for seed in range(5)}) > 1
    assert all(type(index) is int for index in indices)


def test_orders_by_pass_rate(records):
    easy, hard = order(records, "easy_to_hard", 3), order(records, "hard_to_easy", 3)
    assert [RATES[i] for i in easy] == sorted(RATES, reverse=True)
    assert [RATES[i] for i in hard] == sorted(RATES)
    ties = [i for i in easy if RATES[i] == 0.5]
    assert ties != sorted(ties)


def test_random_needs_no_pass_rate(make_record):
    assert sorted(order([make_record(), make_record()], "random", 0)) == [0, 1]
    assert order([], "easy_to_hard", 0) == []


def test_what_an_order_refuses(records, make_record):
    for name in ("easy_to_hard", "hard_to_easy"):
        with pytest.raises(
            InputError, match="1 of 9 records have no pass_rate \\(the first is new\\)"
        ):
            order([*records, make_record(id="new")], name, 0)
    with pytest.raises(InputError, match="order 'easy' is unknown; choose easy_to_hard"):
        order(records, "easy", 0)


def test_drop(records, make_record):
    unknown = make_record(id="unknown")
    kept, counts = drop([*records, unknown])
    assert [record.id for record in kept] == ["r0", "r1", "r3", "r4", "r5", "r6", "r7", "unknown"]
    assert counts == {"kept": 8, "unsolved": 1, "solved": 0}
    kept, counts = drop([*records, unknown], solved=True)
    assert [record.id for record in kept] == ["r0", "r3", "r4", "r5", "r6", "r7", "unknown"]
    assert counts == {"kept": 7, "unsolved": 1, "solved": 1}
    kept, counts = drop([*records, unknown], unsolved=False, solved=True)
    assert [record.id for record in kept] == ["r0", "r2", "r3", "r4", "r5", "r6", "r7", "unknown"]
    assert counts == {"kept": 8, "unsolved": 0, "solved": 1}


def test_drop_may_leave_nothing(make_record):
    assert drop([make_record(pass_rate=0.0)]) == (
        [],
        {"kept": 0, "unsolved": 1, "solved": 0},
    )
    assert drop([]) == ([], {"kept": 0, "unsolved": 0, "solved": 0})


def test_staged_is_shuffled_within_equal_parts_from_easy_to_hard(make_record):
    rates = [i / 12 for i in range(12)]
    records = [make_record(pass_rate=rate) for rate in rates]
    found = order(records, "staged", 0, stages=3)
    parts = [found[at : at + 4] for at in (0, 4, 8)]
    assert [sorted(part) for part in parts] == [[8, 9, 10, 11], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert any(part != sorted(part, reverse=True) for part in parts)
    assert order(records, "staged", 1, stages=3) != found
    assert order(records, "staged", 0, stages=1) != order(records, "easy_to_hard", 0)
    assert order(records, "staged", 0, stages=12) == order(records, "easy_to_hard", 0)


def test_as_written(make_record):
    assert order([make_record()] * 5, "as_written", 7) == [0, 1, 2, 3, 4]
