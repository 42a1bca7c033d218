import numpy as np
import pytest

from sari_jax.corpus.clean.balance import balance_positions, excess_lengths, length_report


@pytest.fixture
def skewed(make_record):
    """Ninety with three choices and sixty with two, the right one always the first."""
    return [
        make_record(id=str(i), choices=("aa", "bb", "cc")[: 3 if i < 90 else 2], answer_index=0)
        for i in range(150)
    ]


def test_positions_are_even_for_each_number_of_choices(skewed):
    balanced, report = balance_positions(skewed, seed=1)
    assert report["choices"]["3"] == {"before": [90, 0, 0], "after": [30, 30, 30]}
    assert report["choices"]["2"] == {"before": [60, 0], "after": [30, 30]}
    assert report["fixed"] == 0
    for old, new in zip(skewed, balanced, strict=True):
        assert old.id == new.id and sorted(new.choices) == sorted(old.choices)
        assert new.choices[new.answer_index] == "aa"
    assert balanced == balance_positions(skewed, seed=1)[0]
    assert balanced != balance_positions(skewed, seed=2)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"choices": ("a dog", "a cat", "both of the above")},
        {"choices": ("a dog", "a cat", "A and B")},
        {"choices": ("a dog", "a cat", "All of the above")},
        {"choices": ("a dog", "a cat", "Neither A nor B")},
        {"chain_free": "So it is option B."},
        {"chain_free": "The correct answer is B."},
        {"chain_free": "It barks, so B) dog fits."},
        {"chain_free": "Option: B"},
        {"chain_free": "It barks; answer: B"},
        {"chain_free": "It barks. So I take option b"},
        {"chain_free": "It barks, as the first option says."},
        {"chain_free": "Answer B fits best."},
        {"chain_structured": {"reasoning": "None of the above barks but one."}},
        {"question": "Which is heard, option A or option B?"},
        {"question": "Is it the second choice?"},
    ],
)
def test_what_speaks_of_positions_stays(skewed, make_record, changes):
    placed = [make_record(id=f"p{i}", answer_index=0, **changes) for i in range(10)]
    balanced, report = balance_positions(skewed + placed)
    assert balanced[150:] == placed and report["fixed"] == 10
    assert sorted(report["choices"]["3"]["after"]) == [33, 33, 34]


def test_what_speaks_of_sounds_moves(make_record):
    chain = (
        "Both of these barks come first. A man sings all this above a B minor chord (a loud one)."
    )
    records = [make_record(id=str(i), answer_index=0, chain_free=chain) for i in range(9)]
    _, report = balance_positions(records)
    assert report["choices"]["3"]["after"] == [3, 3, 3] and report["fixed"] == 0


def test_the_rate_of_longest_answers(make_record):
    choices = ("dog", "cat", "elephant")
    records = [make_record(choices=choices, answer_index=2 if i < 6 else 0) for i in range(10)]
    report = length_report(records)
    assert report["longest"] == {"rate": 0.6, "chance": 0.3333}
    assert report["shortest"] == {"rate": 0.0, "chance": 0.0}  # two are as short
    assert length_report([])["longest"] == {"rate": 0, "chance": 0}


def test_the_excess_is_left_out(make_record):
    generator = np.random.default_rng(0)
    records = []
    for i in range(600):
        choices = tuple("x" * int(n) for n in generator.permutation([3, 5, 7, 9]))
        sizes = [len(choice) for choice in choices]
        kind = generator.random()
        right = np.argmax(sizes) if kind < 0.5 else np.argmin(sizes) if kind < 0.85 else 1
        records.append(make_record(id=str(i), choices=choices, answer_index=int(right)))
    gone = excess_lengths(records, seed=3)
    kept = [record for row, record in enumerate(records) if row not in gone]
    for found in length_report(kept).values():
        assert found["rate"] <= found["chance"] + 4 / len(kept)
    assert len(kept) > 60 and gone == excess_lengths(records, seed=3)
    assert excess_lengths(kept) == {}
    assert set(gone.values()) == {
        f"the right answer is the {name}, more often than chance has it"
        for name in ("longest", "shortest")
    }
