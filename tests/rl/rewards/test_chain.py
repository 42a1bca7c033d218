import pytest

from sari_jax.data.styles import STYLES
from sari_jax.rl.rewards.chain import (
    consistency_reward,
    last_choice,
    section_names,
    sections_reward,
)

STRUCTURED, FREE, DIRECT = (STYLES[name] for name in ("structured", "free", "direct"))


def chain(answer="dog", **sections):
    whole = {
        "planning": "I listen for an animal.",
        "caption": "Something barks twice.",
        "reasoning": "Dogs bark.",
        "summary": "It is a dog.",
    } | sections
    body = "".join(f"<{name}>{text}</{name}>" for name, text in whole.items() if text is not None)
    return f"<think>{body}</think><answer>{answer}</answer>"


def test_the_parts_of_a_chain():
    assert section_names(STRUCTURED) == ("planning", "caption", "reasoning", "summary")
    assert section_names(FREE) == ("think",) and section_names(DIRECT) == ()


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, 1.0),
        ({"caption": None}, 0.75),
        ({"caption": " "}, 0.75),
        ({"caption": "..."}, 0.75),
        ({"planning": "Which animal is heard?"}, 0.75),  # the question's words, and nothing else
        ({"planning": "which  ANIMAL is heard"}, 0.75),
        ({"planning": "Which animal is heard? I listen for one."}, 1.0),
        ({"summary": "Dogs bark."}, 0.75),  # a section before it
        ({"caption": "Dogs bark."}, 0.75),  # of two that are the same, one is counted
        ({"caption": "a b c d e f", "reasoning": "b c d e f"}, 0.75),  # five words in a row
        ({"caption": "a b c d e f", "reasoning": "b c d e"}, 1.0),  # four may come twice
        # Two words of its own do not make up for it, five do.
        ({"caption": "b c d e f", "reasoning": "a b c d e f g"}, 0.75),
        ({"caption": "b c d e f", "reasoning": "v w b c d e f x y z"}, 1.0),
        (
            {"planning": "a b c d e", "caption": "v w x y z", "reasoning": "a b c d e v w x y z"},
            0.75,
        ),
        ({"caption": "abc bcd cde def efg", "reasoning": "bc bcd cde def efg"}, 1.0),  # whole words
    ],
)
def test_sections(sections, expected, make_record):
    assert sections_reward(chain(**sections), make_record(), STRUCTURED) == expected


@pytest.mark.parametrize(
    ("completion", "style", "expected"),
    [
        ("", STRUCTURED, 0.0),
        ("<answer>dog</answer>", STRUCTURED, 0.0),
        ("<think>It barks.</think>", FREE, 1.0),
        ("<think>Which animal is heard?</think>", FREE, 0.0),
        ("no tags", FREE, 0.0),
        ("no tags", DIRECT, 1.0),  # it asks for no chain
    ],
)
def test_sections_of_other_styles(completion, style, expected, make_record):
    assert sections_reward(completion, make_record(), style) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is a dog.", "dog"),
        ("Not a cat but a DOG!", "dog"),
        ("A dog, then a cat.", "cat"),
        ("A dog barking", "dog barking"),  # and not the dog within it
        ("A dog barking, so it is a dog", "dog"),
        ("hotdogs", None),
        ("a hen house", None),
        ("", None),
    ],
)
def test_the_last_choice_that_a_text_names(text, expected):
    assert last_choice(text, ("Dog", "dog barking", "cat", "4/4", "...")) == expected


def test_choices_that_overlap_end_with_the_later_one():
    assert last_choice("it is low high low", ("low high", "high low", "low")) == "high low"


@pytest.mark.parametrize(
    ("answer", "summary", "expected"),
    [
        ("dog", "It is a dog.", 1),
        ("(B) Dog", "It is a dog.", 1),
        ("cat", "Not a dog: a cat.", 1),  # wrong, but what was concluded
        ("cat", "It is a dog.", 0),
        ("dog", "It is an animal.", 0),
        ("dog", None, 0),
        ("dragon", "It is a dog.", 0),
        ("", "It is a dog.", 0),
    ],
)
def test_consistency(answer, summary, expected, make_record):
    completion = chain(answer, summary=summary)
    assert consistency_reward(completion, make_record(), STRUCTURED) == expected


def test_consistency_of_other_styles(make_record):
    record = make_record()
    free = "<think>A cat? No, a dog.</think><answer>{}</answer>"
    assert consistency_reward(free.format("dog"), record, FREE) == 1.0
    assert consistency_reward(free.format("cat"), record, FREE) == 0.0
    assert consistency_reward("<answer>cat</answer>", record, DIRECT) == 1.0


@pytest.mark.parametrize("style", [STRUCTURED, FREE, DIRECT], ids=lambda style: style.name)
def test_a_supervised_target_earns_everything(style, make_record):
    record = make_record()
    for reward in (sections_reward, consistency_reward):
        assert reward(style.render(record), record, style) == 1.0
