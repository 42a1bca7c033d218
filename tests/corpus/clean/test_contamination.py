import json
import random
from pathlib import Path

import pytest

from sari_jax.corpus.clean import contamination
from sari_jax.corpus.clean.contamination import (
    Row,
    find_questions,
    read_benchmark,
    template_rows,
)
from sari_jax.errors import InputError

MMAU = Path(__file__).parents[3].parent / "shared/data/mmau/mmau-test-mini-v05.15.25.json"
WORDS = "tempo dog street piano rain engine crowd voice bird door train bell wind glass".split()


def edited(row: Row, number: int) -> tuple[str, tuple[str, ...]]:
    """Case, punctuation, order of choices and one word changed."""
    generator = random.Random(number)
    words = row.question.split()
    words[generator.randrange(len(words))] = generator.choice(("some", "this", "audible"))
    choices = [choice.upper() + "." for choice in row.choices]
    generator.shuffle(choices)
    return " ".join(words).lower().replace("?", " ..") + "!", tuple(choices)


@pytest.mark.skipif(not MMAU.is_file(), reason="needs MMAU's questions beside the repository")
def test_planted_questions_of_a_real_benchmark_are_found_and_no_other(make_record):
    rows, unusable = read_benchmark(MMAU)
    assert len(rows) == 1000 and unusable == 0
    generator = random.Random(0)
    planted = generator.sample(rows, 100)
    records = []
    for number, row in enumerate(planted):
        question, choices = (row.question, row.choices) if number < 50 else edited(row, number)
        records.append(
            make_record(id=f"p{number}", question=question, choices=choices, answer_index=0)
        )
    for number in range(500):
        row = rows[number]
        own = tuple(f"{w} {generator.randrange(99)}" for w in generator.sample(WORDS, 4))
        asked = f"Which {generator.choice(WORDS)} comes before the {generator.choice(WORDS)}?"
        # Half of them ask what the benchmark asks, of other choices.
        question = row.question if number % 2 else asked
        records.append(make_record(id=f"c{number}", question=question, choices=own, answer_index=0))
    found = find_questions(records, rows)
    assert sorted(found) == list(range(100))
    for number in range(50):
        assert "question 100 and choices 100 of 100 alike" in found[number].detail


def test_generic_choices_need_the_question(make_record):
    rows = [
        Row(f"row {i}", f"Is there a {word} in it?", ("yes", "no")) for i, word in enumerate(WORDS)
    ]
    ours = [
        make_record(question="Is there a goat in it?", choices=("Yes", "No"), answer_index=0),
        make_record(question="is a dog there in it", choices=("No", "Yes"), answer_index=0),
    ]
    assert list(find_questions(ours, rows)) == [1]


def test_numbers_make_other_choices(make_record):
    rows = [Row("row", "What is the tempo of this piece in beats?", ("60", "80", "100", "120"))]
    ours = [
        make_record(question=rows[0].question, choices=("60", "80", "100", "130"), answer_index=0),
        make_record(question=rows[0].question, choices=("120", "80", "100", "60"), answer_index=0),
        make_record(question="What tempo has this piece in beats?", choices=rows[0].choices),
    ]
    assert list(find_questions(ours, rows)) == [1, 2]
    assert find_questions([], rows) == find_questions(ours, []) == {}


def test_a_text_asked_of_many_sounds_is_a_template(make_record):
    """Unless the benchmark asks it of as many, or the many are one sound."""
    asked, choices = "Which feeling is in the voice?", ("joy", "anger", "fear")
    ours = [make_record(question=asked, choices=choices, answer_index=0)] * 30
    rows = [Row(f"row {i}", asked, choices) for i in range(10)]
    sounds = [(i,) for i in range(30)]
    found = find_questions(ours, rows[:1])
    assert list(found) == list(range(30)) and found[0].rows == 1
    assert template_rows(ours, sounds, found) == list(range(30))
    assert template_rows(ours, [(0,)] * 30, found) == []
    assert template_rows(ours[:5], sounds[:5], find_questions(ours[:5], rows[:1])) == []
    assert template_rows(ours, sounds, find_questions(ours, rows)) == []


def test_of_a_template_only_choices_that_share_words_are_compared(make_record, monkeypatch):
    generator, compared = random.Random(0), []
    words = [f"{a}{b}" for a in WORDS for b in WORDS]
    rows = [
        Row(f"row {i}", "What is heard?", tuple(generator.sample(words, 4))) for i in range(500)
    ]
    ours = [
        make_record(
            question="is heard: WHAT", choices=tuple(generator.sample(words, 4)), answer_index=0
        )
        for _ in range(100)
    ]
    first, *others = rows[7].choices
    ours.append(
        make_record(question="What is heard", choices=(f"{first}s", *others), answer_index=0)
    )
    ours += [
        make_record(question="What is heard", choices=r.choices, answer_index=0) for r in rows[:9]
    ]
    real = contamination.choices_alike
    monkeypatch.setattr(
        contamination, "choices_alike", lambda a, b: compared.append(a) or real(a, b)
    )
    assert sorted(find_questions(ours, rows)) == list(range(100, 110))
    assert len(compared) < 110 * 50


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "choices": ["a", "b"], "id": "x"},
        {"question_text": "Who?", "multi_choice": ["a", "b"], "id": "x"},
        {"question": "Who?", "choice_a": "a", "choice_b": "b", "id": "x"},
    ],
)
@pytest.mark.parametrize("lines", [True, False])
def test_forms_of_benchmarks(tmp_path, row, lines):
    path, bad = tmp_path / "bench.json", {"question": 3}
    text = (
        f"{json.dumps(row)}\nno json\n{json.dumps(bad)}\n" if lines else json.dumps([row, 1, bad])
    )
    path.write_text(text)
    assert read_benchmark(path) == ([Row("bench.json row 1 x", "Who?", ("a", "b"))], 2)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, "no json"])
def test_no_benchmark(tmp_path, text):
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(InputError, match="no row has a question"):
        read_benchmark(tmp_path / "bench.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_benchmark(tmp_path / "none.json")
