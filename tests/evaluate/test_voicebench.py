"""VoiceBench's rule, against a reading of it that looks from each letter outwards and ranks what surrounds it."""

import collections
import json
import random

import pytest

from sari_jax.cli import main
from sari_jax.errors import InputError
from sari_jax.evaluate.benchmarks import BENCHMARKS, as_records, read_rows
from sari_jax.evaluate.official import joined, score_rows
from sari_jax.evaluate.voicebench import letter

# What follows a letter: {place in VoiceBench's order: what stands before it}.
RANKS = {
    '': {
        0: '答案是', 1: '答案是 ', 2: '答案是选项', 3: '答案应该是', 4: '答案应该是 ', 5: '答案就是选项',
        6: '答案是‘', 8: '答案选', 11: 'answer is: **', 12: 'answer is **', 13: 'the answer to the question is: **',
        14: 'the answer to the multiple-choice question is **', 17: 'the answer is ', 18: 'the correct answer is ',
        19: 'would select ', 20: 'would choose ', 21: 'would select option ', 22: 'would choose option ',
        52: 'would be ', 53: 'would be option ', 63: 'the answer is:\n**', 92: 'is: ', 116: 'is:\n\n**',
    },
    '：': {7: '是'},
    '是正确': {9: ''},
    '是最合适的': {10: '选项'},
    "'": {
        15: "the answer is '", 95: "is likely '", 96: "is option '", 99: "would be '",
        105: "the answer to the question is '", 107: "known as '",
    },
    ' is the best answer': {16: ''},
    '"': {23: 'is "', 91: 'select option "', 162: '"'},
    '.': {
        24: 'is "', 29: 'is: **', 31: 'is **', 46: 'is likely to be: **', 50: 'is:\n**', 51: 'is:\n\n**',
        58: 'is typically ', 59: "i'd say ", 60: 'option ', 65: 'is ', 67: 'is: ', 72: ':\n', 75: ': \n',
        76: ':  \n', 77: ':\n\n', 81: ': \n\n', 115: 'is \\(\\text{', 118: 'is \\( \\text{', 125: 'is: \\( \\text{',
        137: 'is } \\mathbf{', 143: 'is:\n\\( \\textbf{', 152: ' ', 156: '**', 158: '"',
    },
    ')': {
        25: 'is: **', 28: 'is **', 35: 'is: \n\n**', 37: 'be **', 40: 'suggests **', 42: 'with **',
        43: 'is typically "', 44: 'be to **', 45: 'is: \n\n', 54: 'would be (', 55: 'would be option (', 68: 'is (',
        69: 'is:\n**', 71: 'is the **', 73: ':\n', 78: ':\n\n', 85: 'is ', 86: 'is: ', 89: '(option ',
        90: 'answer is (', 102: 'is:\n\n**', 104: 'is most likely **', 108: "is '", 114: 'is \\( \\text{',
        121: 'is:\n\\[ \\text{', 122: 'is:\n\n\\[ \\text{', 123: 'is \\( \\textbf{', 132: 'be: \n\n',
        135: 'is: \\( \\text{', 138: 'is \\( \\boxed{', 146: 'is likely "', 148: 'is "', 151: 'is:  \n', 155: ' ',
        157: '**', 161: '(',
    },
    ',': {
        26: 'is **', 32: 'be **', 56: 'is ', 57: 'is typically ', 62: 'option ', 66: 'is ', 74: ':\n', 80: ':\n\n',
        82: 'is option ', 88: 'is: **', 93: 'is typically **', 136: 'is likely: **', 149: 'is most likely **',
        153: ' ', 159: '"',
    },
    ':': {
        27: 'is **', 30: 'is: **', 34: 'is therefore option **', 36: 'as **', 38: 'be **', 41: 'be option **',
        61: 'option ', 64: 'is ', 70: 'is likely **', 79: 'is most likely **', 87: 'is:\n\n', 97: 'is:\n**',
        109: 'is typically **', 113: 'is \\( \\text{', 126: 'corresponds to:\n- **', 134: 'is:  \n**',
        141: 'is:\n  \n**', 147: 'option **', 150: 'is often **', 154: ' ', 160: '"',
    },
    '**': {
        33: 'is: **', 39: 'is: \n\n**', 48: 'is option **', 49: 'is likely **', 94: 'is **',
        103: 'closest to option **', 106: 'question is **', 130: 'corresponds to option **', 131: 'be **',
        145: 'was option **',
    },
    ' (': {47: 'is **', 101: 'question is '},
    ') would be': {83: '('},
    ').': {84: 'is ('},
    ' ': {98: 'is \\( \\boxed{', 129: 'is:\n**', 142: 'is option **'},
    '** ': {100: 'is the **'},
    '}} \\)': {110: 'is \\( \\boxed{\\text{'},
    ') }': {111: 'is \\( \\text{'},
    '} \\)': {112: 'is \\( \\text{'},
    '.}': {117: 'is \\( \\text{'},
    '}': {
        119: 'is \\( \\boxed{', 124: 'is \\( \\text{', 133: 'is:\n\\[ \\boxed{', 139: 'is \\( \\textbf{',
        144: 'is \\( \\mathbf{',
    },
    '}}': {120: 'is:\n\\[ \\boxed{\\text{'},
    '**.': {127: 'would be: **'},
    ' \\)': {128: 'is \\( '},
    '\\)': {140: 'is \\('},
}  # fmt: skip

BENCHMARK = BENCHMARKS["voicebench-mmsu"]
FILLERS = [
    "", "\n", " ", "\u2028", "I think ", "é", "option", "**", "İ", "K", "b", "The sky is blue", "<1>", "<2> ", "<3>\n",
    "<4>", "is", "would be", "is:", '"', "(", ")", ".", ":", ",", "答案", "是", "the answer is", "\x00", "\ud800",
]  # fmt: skip


def read(response: str) -> str | None:
    """Of all places where a letter stands as in a phrase, that of the lowest rank, and of these the first letter."""
    text = response.lower()
    if text[:3] in ("<1>", "<2>", "<3>"):
        text = text[3:].strip()
    found = []
    for place, character in enumerate(text):
        if character not in ("a", "b", "c", "d"):
            continue
        for after, ranks in RANKS.items():
            if text[place + 1 :].startswith(after):
                found += [
                    (r, character) for r, before in ranks.items() if text[:place].endswith(before)
                ]
    if found:
        return min(found)[1].upper()
    begins = [
        one
        for one in "ABCD"
        if text == one.lower() or text[:2] in [one.lower() + p for p in ".,:)"]
    ]
    return begins[0] if begins else None


def response(rng: random.Random) -> str:
    """One to four phrases with letters in them, right ones or others, among all kinds of text."""
    if rng.random() < 0.1:
        return rng.choice("abcdABCDeß") + rng.choice(["", *".:),;\n x"]) + rng.choice(FILLERS)
    text = ""
    for _ in range(rng.randint(1, 4)):
        text += rng.choice(FILLERS)
        if rng.random() < 0.7:
            after = rng.choice(list(RANKS))
            text += rng.choice(list(RANKS[after].values())) + rng.choice("abcdeABCD") + after
    if text and rng.random() < 0.5:  # nearly a phrase
        place = rng.randrange(len(text))
        text = text[:place] + text[place + 1 :]
    return text.upper() if rng.random() < 0.2 else text


def test_every_phrase_is_there_once_and_in_its_place():
    ranks = [rank for by in RANKS.values() for rank in by]
    assert sorted(ranks) == list(range(163))
    for after, by in RANKS.items():
        for before in by.values():
            for one in "abcd":
                text = before + one + after
                assert letter(text) == read(text), text


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(s, marks=pytest.mark.numerics) for s in range(4, 20))]
)
def test_random_responses(seed):
    rng = random.Random(seed)
    texts = [response(rng) for _ in range(1000)]
    found = [letter(text) for text in texts]
    assert found == [read(text) for text in texts]
    assert min(collections.Counter(found).values()) > 50  # each letter, and what cannot be read


@pytest.mark.parametrize(
    "text, said",
    [
        ("B", "B"), ("b.", "B"), ("<1> C", "C"), ("<4> C", None), ("", None), ("B\n", None), (" B", None), ("E.", None),
        ("The answer is cold.", "C"), ("It is a dog: is (D)", "D"), ("Not A. but the answer is B", "B"),
        ("c) or the answer is: **a", "A"), ("option b, option a.", "A"), ("答案是D", "D"), ("d;", None),
    ],
)  # fmt: skip
def test_by_hand(text, said):
    assert letter(text) == read(text) == said


def rows(rng: random.Random) -> list[dict]:
    """Answered, unanswered and null, repeated, with more keys or without a category."""
    given = []
    for number in range(rng.randint(1, 60)):
        row = {
            "question_id": rng.randrange(50) + number * 50,
            "reference": rng.choice("ABCD"),
            "x": [1],
        }
        if rng.random() < 0.9:
            row["category"] = rng.choice(["law", "physics"])
        kind = rng.random()
        if kind < 0.9:
            row["response"] = response(rng)
        elif kind < 0.95:
            row["response"] = None
        given += [row] * (2 if rng.random() < 0.1 else 1)
    return given


@pytest.mark.parametrize(
    "seed", [*range(10), *(pytest.param(s, marks=pytest.mark.numerics) for s in range(10, 100))]
)
def test_files(seed):
    given = rows(random.Random(seed))
    scores = score_rows(BENCHMARK, joined(BENCHMARK, given))
    said = [row for row in given if row.get("response") is not None]
    right = [row for row in said if read(row["response"]) == row["reference"]]
    failed = [row for row in said if read(row["response"]) is None]
    luck = [sum(guess == row["reference"] for guess in "ABCD") / 4 for row in failed]
    assert (scores["rows"], scores["answered"]) == (len(given), len(said))
    assert scores["unreadable"] == len(failed)
    assert scores["repeated"] == len(given) - len({row["question_id"] for row in given})
    assert scores["accuracy"]["all"] == pytest.approx(len(right) / len(given))
    if said:
        assert scores["accuracy"]["answered"] == pytest.approx(len(right) / len(said))
        assert scores["fail_rate"] == pytest.approx(len(failed) / len(said))
        expected = pytest.approx((len(right) + sum(luck)) / len(said))
        assert scores["official"] == {"accuracy": expected, "rows": len(said)}
    for name, by in scores["by"]["category"].items():
        assert by["rows"] == sum(row.get("category") == name for row in given)
        assert by["right"] == sum(row.get("category") == name for row in right)


def test_nothing_answered_has_no_expected_accuracy():
    scores = score_rows(BENCHMARK, [{"reference": "A"}])
    assert scores["official"]["accuracy"] is scores["fail_rate"] is None


def test_questions_and_predictions_go_together_by_question_id():
    questions = [{"question_id": n, "reference": "ABCD"[n], "category": "law"} for n in range(3)]
    scores = score_rows(
        BENCHMARK, joined(BENCHMARK, [{"question_id": 1, "response": "b"}], questions)
    )
    assert (scores["rows"], scores["answered"], scores["accuracy"]["all"]) == (3, 1, 1 / 3)
    with pytest.raises(InputError, match="question_id '7' is not in the benchmark's file"):
        joined(BENCHMARK, [{"question_id": 7, "response": "b"}], questions)
    with pytest.raises(InputError, match="row 0 lacks 'question_id'"):
        joined(BENCHMARK, [], [{"reference": "A"}])
    with pytest.raises(InputError, match="row 0 lacks 'reference'"):
        joined(BENCHMARK, [{"question_id": 7, "response": "b"}])


@pytest.mark.tools
def test_a_model_hears_the_question_and_names_a_letter(starter_dir, small_model, tmp_path, capsys):
    sounds = [
        json.loads(line)["audio"][0]["path"]
        for line in (starter_dir / "test.jsonl").read_text().splitlines()[:2]
    ]
    questions = [
        {
            "question_id": n,
            "category": "law",
            "prompt": "Who?\nA. I\nB. You",
            "reference": "AD"[n],
            "audio_path": path,
        }
        for n, path in enumerate(sounds)
    ]
    file = tmp_path / "mmsu.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in questions))
    records = as_records(read_rows(file, BENCHMARK), BENCHMARK, starter_dir)
    assert [record.answer_index for record in records] == [0, 3]
    assert {record.choices for record in records} == {("A", "B", "C", "D")}
    words = [
        "eval",
        "--benchmark",
        "voicebench-mmsu",
        "--questions",
        file,
        "--audio-root",
        starter_dir,
        "--json",
    ]
    words += ["--model", small_model, "--out", tmp_path / "out", "--max-tokens", "4"]
    assert main([str(word) for word in words]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["rows"], scores["answered"]) == (2, 2)
    prompt = json.loads((tmp_path / "out/settings.json").read_text())["first_prompt"]
    assert "in the recording" in prompt and "Who?" not in prompt
    lines = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    predictions = list(map(json.loads, lines))
    assert [{k: v for k, v in row.items() if k != "response"} for row in predictions] == questions
