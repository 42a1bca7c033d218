"""Written-out questions and answers."""

import pytest

from sari_jax.corpus.sources.replies import answered, chain, question_and_choices
from sari_jax.data.ledger import Drop
from sari_jax.data.styles import STYLES, question_text


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it? (a) A dog. (b) A cat, old; (c) Rain",
        "What is it?\n(A) A dog\n(B) A cat, old\n(C) Rain\nAnswer with the letter.",
        "What is it? Choose the correct option from the following options:\nA. A dog\nB. A cat, old\nC. Rain",
        "What is it?\nPlease select one of these options: A) A dog B) A cat, old C) Rain",
        "What is it? Please choose the answer from the following options: ['A dog', \"A cat, old\", 'Rain'].",
        "What is it?\n- A dog\n- A cat, old\n- Rain",
    ],
)
def test_choices_written_after_a_question(prompt):
    assert question_and_choices(prompt) == ("What is it?", ["A dog", "A cat, old", "Rain"])


@pytest.mark.parametrize(
    ("prompt", "question", "choices"),
    [
        ("Which? (A) Vitamin A. (B) Iron", "Which?", ["Vitamin A", "Iron"]),
        ("Of part A: which? A. x B. y", "Of part A: which?", ["x", "y"]),
        ("Is it a) or (b)?\nA. x\nB. y", "Is it a) or (b)?", ["x", "y"]),
    ],
)
def test_letters_that_mark_no_choice(prompt, question, choices):
    assert question_and_choices(prompt) == (question, choices)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_our_own_prompts_are_read(style):
    prompt = question_text("Which is it?", ["a dog", "rain"], style)
    assert question_and_choices(prompt) == ("Which is it?", ["a dog", "rain"])


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it?",
        "",
        "(a) x (b) y",
        "Is it? (a) x",
        "Is it? ['x']",
        "Is it? [open",
        "Is it? ['x', 3]",
    ],
)
def test_no_choices(prompt):
    with pytest.raises(Drop) as caught:
        question_and_choices(prompt)
    assert caught.value.reason == "no choices in the question"


@pytest.mark.parametrize(
    "reply",
    [
        "B",
        "a train",
        "(b) a train",
        "<answer>a train</answer>",
        "<think>Not A.</think><answer>B</answer>",
        "<think>Not A.</think>\nThe answer is **B**.",
        "<RESPONSE>The answer is open at first. The correct answer is: B. a train.</RESPONSE>",
        "I hear wheels. The correct option is option B.",
    ],
)
def test_an_answer(reply):
    assert answered(reply, ["rain", "a train"])["answer_index"] == 1


def test_a_choice_that_looks_like_a_verdict():
    assert answered("The answer is rain", ["The answer is rain", "rain"])["answer_index"] == 0


@pytest.mark.parametrize(
    "reply", ["", "<answer></answer>", "Neither.", "<think>B</think>", "The answer is"]
)
def test_no_answer(reply):
    with pytest.raises(Drop) as caught:
        answered(reply, ["rain", "a train"])
    assert caught.value.reason == "answer not among the choices"


def test_chains():
    parts = {"planning": "p", "caption": "c", "reasoning": "r", "summary": "s"}
    for tag in (str.lower, str.upper):
        text = "".join(f"<{tag(name)}>\n{body}</{tag(name)}>\n" for name, body in parts.items())
        assert chain(text) == {"chain_structured": parts}
        assert chain(f"<{tag('think')}>{text}</{tag('think')}>") == {"chain_structured": parts}
    assert chain("<think>It barks.</think>") == {"chain_free": "It barks."}
    assert chain("<THINK><PLANNING>Listen.</PLANNING> It barks.</THINK>") == {
        "chain_free": "Listen. It barks."
    }
    assert chain("It barks.") == {} == chain("<think><answer></answer></think>")
    nested = "".join(f"<{name}>{body}<answer>B</ANSWER></{name}>" for name, body in parts.items())
    assert chain(nested)["chain_structured"] == {n: f"{body}B" for n, body in parts.items()}


@pytest.mark.parametrize(
    "prompt",
    [
        "choose " * 1000 + "option " * 1000 + "?x",
        "['" + "a " * 9000,
        "['a" + "\\" * 9000,
        "(a) x " * 3000,
        "- " * 9000,
        "x" * 1_000_000,
    ],
)
def test_what_is_made_to_take_long_ends_at_once(prompt):
    with pytest.raises(Drop):
        question_and_choices(prompt)
    for reply in (prompt, "<think>" + prompt, "</think>" * 2000, "answer is " * 1900):
        with pytest.raises(Drop):
            answered(reply, ["dog", "cat"])


def test_choices_in_quotes_may_hold_quotes_and_brackets():
    prompt = """What? Choose one of these options: ['a "b" [c]', "it's", 'd\\'s']"""
    assert question_and_choices(prompt) == ("What?", ['a "b" [c]', "it's", "d's"])
