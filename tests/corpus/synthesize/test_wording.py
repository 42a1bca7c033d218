import pytest

from sari_jax.corpus.synthesize.wording import (
    cites_text,
    holds_tag,
    json_reply,
    names_key,
    unwrapped,
)
from sari_jax.data.ledger import Drop

WANTED = {"a": "b {c}"}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "b {c}"}',
        '```json\n{"a": "b {c}"}\n```',
        '```\n{"a": "b {c}"}```',
        'Here it is:\n\n```json\n{"a": "b {c}"}\n```\nAnything else?',
        'Sure: {"a": "b {c}"}',
        '<think>Maybe {"a": 1}?</think>\n{"a": "b {c}"}',
        'Maybe {"a": 1}?</think>\n{"a": "b {c}"}',
        '<think>Maybe {"a": 1}?</think> Or <think>{"a": 2}?</think>\n{"a": "b {c}"}',
    ],
)
def test_an_object_is_found_in_its_wrapping(text):
    assert json_reply(text) == WANTED


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "no",
            "[1]",
            '"a"',
            '{"a": "b',
            "{'a': 'b'}",
            '{"a": 1} or {"a": 2}',
            "}{",
            "[" * 99_999,
        ),
        *(r'{"a": "half \ud800"}', r'{"\uDC00": "a"}'),
    ],
)
def test_what_is_no_object(text):
    with pytest.raises(Drop) as caught:
        json_reply(text)
    assert caught.value.reason == "not a JSON object"


def test_plain_text_is_unwrapped_too():
    assert unwrapped("<think>hm</think>\nIt barks.\n") == "It barks."
    assert unwrapped("hm\n</think>\n\nIt barks.") == "It barks."
    assert unwrapped("```text\nIt barks.\n```") == "It barks."


@pytest.mark.parametrize(
    "text",
    [
        "So it is (B).",
        "(b) fits.",
        "That leaves option B.",
        "That leaves option b.",
        "Option A fits best.",
        "Choice C: a dog.",
        "I pick choice 2, the dog.",
        "Options B and C fall away.",
        "The answer is B.",
        "The correct answer must be B, as it barks",
        'The answer is "B".',
        "Answer: B",
        "First this.\nB. a dog",
        "B) a dog",
        "The answer key says dog.",
        "The second option fits.",
        "I take the third listed choice.",
        "This agrees with the given answer.",
        "It matches the provided correct answer.",
        "The correct answer is given as dog.",
    ],
)
def test_a_key_is_named(text):
    assert names_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "The key is B minor and the answer is F sharp minor.",
        "The answer is a dog.",
        "It is a choice a listener makes by ear.",
        "A dog barks. I hear it twice (twice in a row).",
        "The second bark is the last sound; the other options fall away.",
        "It is an option to wait for 2 seconds.",
        "It modulates from A to B.",
        "Of the choices 3/4 fits, as would the option 2.5 times faster.",
    ],
)
def test_no_key_is_named(text):
    assert not names_key(text)


def test_where_choices_are_letters_one_may_be_the_answer():
    assert not names_key("The answer is B.", ("A", "B", "C", "D"))
    assert names_key("The answer is B.", ("a dog", "a cat"))
    assert names_key("So it is option B.", ("A", "B", "C", "D"))


@pytest.mark.parametrize(
    "text",
    [
        "The caption says that a dog barks.",
        "According to the description, a dog barks.",
        "As described in the text, a dog barks.",
        "Based on the provided transcript, she is angry.",
        "The description mentions a dog.",
        "The audio description clearly states a dog.",
        "From the metadata I know the tempo.",
        "I read that a dog barks.",
        "The given label is dog.",
        "The transcript reads hello.",
    ],
)
def test_reading_is_told_of(text):
    assert cites_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "The mood is best described as calm.",
        "A narrator gives a description of the sea.",
        "The voice reads a text aloud.",
        "Based on the sound of the bark, it is a dog.",
        "I hear a dog; the tag of the melody is repeated.",
    ],
)
def test_listening_is_told_of(text):
    assert not cites_text(text)


def test_tags_in_a_reply():
    assert holds_tag("I think </THINK> so") == "</THINK>"
    assert holds_tag("<planning>") and holds_tag("<answer>")
    assert not holds_tag("a < b and <sound> of thinking")
