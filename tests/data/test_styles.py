import time

import pytest

from sari_jax.data.styles import STYLES, Tags, make_style, question_text, style
from sari_jax.errors import InputError

DIRECT, FREE, STRUCTURED = STYLES["direct"], STYLES["free"], STYLES["structured"]
CHAIN = "<think><planning>a</planning><caption>b</caption><reasoning>c</reasoning><summary>d</summary></think>"
GOOD = CHAIN + "<answer>dog</answer>"


def test_instructions_name_every_tag():
    assert DIRECT.instruction == "Give the answer in <answer>."
    assert FREE.instruction == "Think inside <think>, then give the answer in <answer>."
    assert STRUCTURED.instruction == (
        "Think in <planning>, <caption>, <reasoning> and <summary> inside <think>, then give the answer in <answer>."
    )


def test_thinking_takes_room():
    assert (DIRECT.max_tokens, FREE.max_tokens, STRUCTURED.max_tokens) == (256, 512, 512)


def test_question_text_has_the_choices_one_a_line():
    assert question_text("Which animal?", ("cat", "dog; barking"), DIRECT) == (
        "Which animal?\nChoose one:\n- cat\n- dog; barking\nGive the answer in <answer>."
    )
    assert (
        question_text("What is heard?", (), DIRECT)
        == "What is heard?\nGive the answer in <answer>."
    )


@pytest.mark.parametrize("name", STYLES)
def test_a_rendered_record_is_matched_and_read_back(name, make_record):
    record, one = make_record(), style(name)
    text = one.render(record)
    assert one.matches(text)
    assert one.answer(text) == "dog"
    # Free thought may hold anything, a structured chain's tags too.
    accepted = {"direct": {"direct"}, "free": {"free"}, "structured": {"free", "structured"}}
    assert {other for other in STYLES if STYLES[other].matches(text)} == accepted[name]
    expected = {
        "direct": {},
        "free": {"think": record.chain_free},
        "structured": record.chain_structured,
    }
    assert one.sections(text) == expected[name]
    assert list(one.sections(text)) == list(expected[name])


def test_render_without_the_chain_says_what_is_missing(make_record):
    with pytest.raises(InputError, match="record r1: style 'free' needs chain_free"):
        FREE.render(make_record(chain_free=None))
    with pytest.raises(
        InputError, match="needs chain_structured with planning, caption, reasoning, summary"
    ):
        STRUCTURED.render(make_record(chain_structured=None))
    with pytest.raises(InputError, match="with reasoning, summary"):
        STRUCTURED.render(make_record(chain_structured={"planning": "a", "caption": "b"}))


@pytest.mark.parametrize("chain", ["", "  \n", "so <answer>cat</answer>", "it </think> ends"])
def test_render_refuses_a_chain_that_the_grammar_would_not_match(chain, make_record):
    with pytest.raises(
        InputError, match="record r1: its chain or its right choice is empty or contains a tag"
    ):
        FREE.render(make_record(chain_free=chain))


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\n {GOOD} \n",
        GOOD.replace("><", ">\n\n  <"),
        GOOD.replace("dog", " a < b > c & <b>dog</b> "),
        GOOD.replace("dog", "犬\n犬"),
        GOOD.replace("dog", "x"),
    ],
)
def test_structured_matches(text):
    assert STRUCTURED.matches(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dog",
        GOOD + " Thank you.",
        "Sure: " + GOOD,
        GOOD + GOOD,
        GOOD + "<answer>cat</answer>",  # answered twice
        CHAIN,  # not answered
        "<answer>dog</answer>",
        "<answer>dog</answer>" + CHAIN,
        GOOD.removesuffix("</answer>"),
        GOOD.replace("</think>", ""),
        GOOD.replace("</caption>", ""),
        GOOD.replace("<planning>a</planning>", ""),  # a section missing
        GOOD.replace(
            "<planning>a</planning><caption>b</caption>",
            "<caption>b</caption><planning>a</planning>",
        ),
        GOOD.replace("<caption>b</caption>", "<caption>b</caption>, and "),  # text between
        GOOD.replace("b</caption>", "</caption>"),  # empty
        GOOD.replace("b</caption>", " \n\t</caption>"),  # blank
        GOOD.replace("dog", ""),
        GOOD.replace("dog", "<answer>dog</answer>"),  # nested
        GOOD.replace("dog", "</answer><answer>dog"),
        GOOD.replace("b<", "<planning>b</planning><"),
        GOOD.replace("b<", "b <ANSWER>cat</ANSWER><"),  # a tag in disguise within a body
        GOOD.replace("b<", "b <think><"),
        GOOD.replace("answer", "Answer"),
        GOOD.upper(),
        GOOD.replace("<think>", "<think >"),
        GOOD.replace("</think>", "<think>"),
        GOOD.replace("think", "thinking"),
        f"<think>{CHAIN}</think><answer>dog</answer>",
    ],
)
def test_structured_does_not_match(text):
    assert not STRUCTURED.matches(text)


def test_free_and_direct_refuse_a_second_thought():
    assert FREE.matches("<think>a</think>\n<answer>b</answer>")
    assert FREE.matches("<think>of <planning></think><answer>b</answer>")  # not a tag of this style
    assert not FREE.matches("<think>a</think><think>b</think><answer>c</answer>")
    assert not FREE.matches("<think></think><answer>c</answer>")
    assert DIRECT.matches(" <answer>b</answer>")
    assert not DIRECT.matches("b")
    assert not DIRECT.matches("<answer>b</answer>.")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (GOOD, "dog"),
        ("<answer> dog\n</answer> and more", "dog"),
        ("<answer>cat</answer> no, <answer>dog</answer>", "dog"),
        ("<answer>cat</answer> no, <answer>dog", "cat"),  # the last complete one
        ("<answer><answer>dog</answer></answer>", "dog"),
        ("<answer>cat</answer></answer>", "cat"),
        ("<answer></answer>", ""),
        ("<answer>dog", None),
        ("dog</answer>", None),
        ("</answer>dog<answer>", None),
        ("<Answer>dog</Answer>", None),
        ("", None),
    ],
)
def test_answer(text, answer):
    assert STRUCTURED.answer(text) == answer


def test_sections_of_a_completion_cut_short():
    cut = "<think><planning> a </planning><caption>b</caption><reasoning>Becau"
    assert STRUCTURED.sections(cut) == {"planning": "a", "caption": "b"}
    assert FREE.sections(cut) == {}
    assert STRUCTURED.sections("") == {}
    assert DIRECT.sections(GOOD) == {}


def test_tag_names_are_data_even_when_they_look_like_patterns():
    tags = Tags(
        think=".*", planning="a+", caption="(b", reasoning="[c]", summary="\\d", answer="$?"
    )
    odd = make_style("structured", tags)
    text = "<.*><a+>1</a+><(b>2</(b><[c]>3</[c]><\\d>4</\\d></.*><$?>5</$?>"
    assert odd.matches(text)
    assert odd.answer(text) == "5"
    assert odd.sections(text) == {"planning": "1", "caption": "2", "reasoning": "3", "summary": "4"}
    assert not odd.matches(text.replace("\\d", "7"))
    assert not odd.matches(text.replace("<.*>", "<xx>").replace("</.*>", "</xx>"))
    assert not odd.matches(GOOD)


@pytest.mark.parametrize(
    "changes", [{"think": ""}, {"answer": "a>b"}, {"answer": "Think"}, {"caption": "summary"}]
)
def test_bad_tags(changes):
    with pytest.raises(InputError, match="tag"):
        Tags(**changes)


def test_unknown_style():
    with pytest.raises(
        InputError, match="style 'structred' is unknown; choose direct, free, structured"
    ):
        style("structred")
    with pytest.raises(InputError, match="unknown"):
        make_style("cot")


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 14_000,
        "<think><planning>" + "a" * 100_000,
        "<think><planning>" + " " * 100_000,
        "<think><planning>" + "<" * 100_000,
        "<answer>" * 12_000,
        "</answer>" * 11_000,
        "<answer></answer>" * 6_000,
        CHAIN * 1_000,
        GOOD * 900,
        GOOD.replace("dog", "dog " * 25_000) + ".",
        GOOD.replace("><", ">" + " " * 10_000 + "<") + ".",
    ],
    ids=lambda text: text[:24],
)
def test_time_is_linear_in_hostile_text(text):
    begun = time.perf_counter()
    for one in STYLES.values():
        assert not one.matches(text)
        one.sections(text)
        one.answer(text)
    assert time.perf_counter() - begun < 1
