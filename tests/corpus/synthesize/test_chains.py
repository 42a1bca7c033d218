import json

import pytest

from sari_jax.corpus.synthesize import chains, wording
from sari_jax.corpus.synthesize.chains import parse_free, parse_structured
from sari_jax.data.ledger import Drop

CHOICES = ("a cat", "a dog", "a dog and a cow", "Mr. Hen")
GOOD = {
    "planning": "I have to tell which animal makes the sound, so I listen to its timbre.",
    "caption": "A bell rings, then something barks twice.",
    "reasoning": "Barking is short and rough; a cat would mew.",
    "summary": "It barks and nothing else calls. What I hear is a dog.",
}
FREE = "A bell rings, then something barks. A cat would mew. So I hear a dog."


def reply(**changes) -> str:
    changed = GOOD | changes
    return json.dumps({name: body for name, body in changed.items() if body != "left out"})


def test_a_good_chain_comes_back_in_order():
    backwards = json.dumps(dict(reversed(GOOD.items())))
    assert list(parse_structured(backwards, CHOICES, 1).items()) == list(GOOD.items())
    assert parse_structured(f"```json\n{reply()}\n```", CHOICES, 1) == GOOD


@pytest.mark.parametrize(
    "summary, index",
    [
        ("It is A DOG!", 1),
        ("It is a cat, at first. No: a dog.", 1),
        ("I hear a dog and a cow.", 2),
        ("The speaker is Mr. Hen.", 3),
        ("The speaker is mr. hen", 3),
    ],
)
def test_ends_that_are_right(summary, index):
    assert parse_structured(reply(summary=summary), CHOICES, index)["summary"] == summary


@pytest.mark.parametrize(
    "reason, changes",
    [
        (chains.INCOMPLETE, {"planning": "left out"}),
        (chains.INCOMPLETE, {"summary": " "}),
        (chains.INCOMPLETE, {"caption": ["It barks."]}),
        (chains.INCOMPLETE, {"answer": "a dog"}),
        (wording.HOLDS_TAG, {"caption": "It barks.</caption>"}),
        (wording.NAMES_KEY, {"reasoning": "Option B fits."}),
        (wording.NAMES_KEY, {"summary": "It is (B), a dog."}),
        (wording.NAMES_KEY, {"planning": "The second option may be right."}),
        (wording.CITES_TEXT, {"caption": "The caption tells of a bark."}),
        (wording.CITES_TEXT, {"reasoning": "According to the description it barks."}),
        (chains.NO_ANSWER, {"summary": "It barks."}),
        (chains.NO_ANSWER, {"summary": "It is a dog. I am sure."}),
        (chains.NO_ANSWER, {"summary": "It is a cat."}),
        (chains.NO_ANSWER, {"summary": "It is a doggedly barking beast."}),
        (chains.ALSO_ANOTHER, {"summary": "It is a dog, not a cat."}),
        (chains.ALSO_ANOTHER, {"summary": "It is a dog and a cow."}),
        (chains.GIVEN_EARLY, {"planning": "The answer is a dog, so I listen for it."}),
    ],
)
def test_each_rule_for_sections(reason, changes):
    with pytest.raises(Drop) as caught:
        parse_structured(reply(**changes), CHOICES, 1)
    assert caught.value.reason == reason


def test_a_good_free_chain():
    assert parse_free(f" {FREE}\n", CHOICES, 1) == FREE
    assert parse_free(f"<think>hm</think>{FREE}", CHOICES, 1) == FREE


@pytest.mark.parametrize(
    "reason, text",
    [
        (chains.EMPTY, " \n"),
        (chains.EMPTY, "<think>A dog.</think>"),
        (wording.HOLDS_TAG, f"<reasoning>{FREE}</reasoning>"),
        (wording.NAMES_KEY, f"Option B fits. {FREE}"),
        (wording.CITES_TEXT, f"The caption says so. {FREE}"),
        (chains.NO_ANSWER, "It barks."),
        (chains.NO_ANSWER, f"{FREE}\n\nThat was easy"),
        (chains.ALSO_ANOTHER, "It is a dog and not a cat."),
    ],
)
def test_each_rule_for_free_text(reason, text):
    with pytest.raises(Drop) as caught:
        parse_free(text, CHOICES, 1)
    assert caught.value.reason == reason


def test_what_passes_can_be_rendered(make_record):
    from sari_jax.data.styles import STYLES

    record = make_record(
        choices=CHOICES,
        chain_structured=parse_structured(reply(), CHOICES, 1),
        chain_free=parse_free(FREE, CHOICES, 1),
    )
    assert all(style.matches(style.render(record)) for style in STYLES.values())
