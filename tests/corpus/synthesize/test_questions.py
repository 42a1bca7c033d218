import json
from collections import Counter

import pytest

from sari_jax.corpus.synthesize import questions, wording
from sari_jax.corpus.synthesize.questions import Question, balanced, parse_question, shuffled
from sari_jax.data.ledger import Drop

GOOD = {
    "question": "Which animal is heard after the bell?",
    "choices": ["a cat", "a dog", "a hen", "a cow"],
    "answer": "a dog",
}


def reply(**changes) -> str:
    return json.dumps(GOOD | changes)


def test_a_good_reply():
    question = parse_question(reply())
    assert question == Question(GOOD["question"], tuple(GOOD["choices"]), "a dog")


@pytest.mark.parametrize("answer", ["A DOG", "a dog.", " a dog ", "B", "B. a dog", "(B)"])
def test_the_answer_is_known_however_it_is_written(answer):
    assert parse_question(reply(answer=answer)).answer == "a dog"


@pytest.mark.parametrize("form", ["{}. ", "{}) ", "({}) ", "{}: "])
def test_letters_that_count_the_choices_are_taken_off(form):
    choices = [
        form.format(letter) + choice for letter, choice in zip("ABCD", GOOD["choices"], strict=True)
    ]
    question = parse_question(reply(choices=choices, answer=choices[1]))
    assert question.choices == tuple(GOOD["choices"]) and question.answer == "a dog"


def test_choices_may_be_letters_or_near_each_other():
    keys = ["C", "C#", "D", "A"]
    assert parse_question(reply(choices=keys, answer="C#")).answer == "C#"
    tempi = ["3/4", "4/4", "6/8", "34"]
    assert parse_question(reply(choices=tempi, answer="3/4")).answer == "3/4"


def test_a_question_may_name_what_it_asks_between():
    assert parse_question(reply(question="Is it a cat, a dog, a hen or a cow?"))


@pytest.mark.parametrize(
    "reason, changes",
    [
        (questions.INCOMPLETE, {"question": ""}),
        (questions.INCOMPLETE, {"question": None}),
        (questions.INCOMPLETE, {"answer": 1}),
        (questions.INCOMPLETE, {"choices": "a cat, a dog"}),
        (questions.NOT_FOUR, {"choices": ["a cat", "a dog", "a hen"]}),
        (questions.NOT_FOUR, {"choices": [*GOOD["choices"], "a pig"]}),
        (questions.NOT_FOUR, {"choices": ["a cat", "a dog", "A dog.", "a cow"]}),
        (questions.NOT_FOUR, {"choices": ["a cat", "a dog", " ", "a cow"]}),
        (questions.NOT_FOUR, {"choices": ["a cat", "a dog", "?!", "a cow"]}),
        (questions.NOT_FOUR, {"choices": ["a cat", "a dog", 3, "a cow"]}),
        (questions.NO_ONE_ANSWER, {"answer": "a pig"}),
        (questions.NO_ONE_ANSWER, {"answer": "a dog or a cat"}),
        (questions.NO_ONE_ANSWER, {"answer": "A. a dog"}),
        (questions.NO_ONE_ANSWER, {"answer": "E"}),
        (questions.OF_OTHERS, {"choices": ["a cat", "a dog", "a hen", "All of the above"]}),
        (questions.OF_OTHERS, {"choices": ["a cat", "a dog", "a hen", "None of these."]}),
        (questions.OF_OTHERS, {"choices": ["a cat", "a dog", "a hen", "Both A and B"]}),
        (wording.HOLDS_TAG, {"question": "Which <think> is heard?"}),
        (wording.NAMES_KEY, {"question": "Why is option B right?"}),
        (wording.CITES_TEXT, {"question": "According to the caption, what barks?"}),
        (wording.CITES_TEXT, {"choices": ["the caption", "a dog", "a hen", "a cow"]}),
        (questions.GIVEN_AWAY, {"question": "What does a dog do here?"}),
    ],
)
def test_each_rule(reason, changes):
    with pytest.raises(Drop) as caught:
        parse_question(reply(**changes))
    assert caught.value.reason == reason


@pytest.mark.parametrize("text", ["", "A dog barks.", '["a"]', '{"question": "Which'])
def test_no_object(text):
    with pytest.raises(Drop):
        parse_question(text)


@pytest.mark.parametrize("count", [1, 4, 40, 43])
def test_each_place_is_right_equally_often(count):
    question = parse_question(reply())
    named = [(f"clip{i}", question) for i in range(count)]
    dealt = balanced(named, 0)
    places = Counter(index for _, index in dealt)
    assert max(places.values()) - min(places[i] for i in range(4)) <= 1
    for choices, index in dealt:
        assert choices[index] == "a dog" and set(choices) == set(question.choices)
    assert dealt == balanced(named, 0)
    if count >= 40:
        assert dealt != balanced(named, 1)
        assert len({choices for choices, _ in dealt}) > 10


def test_a_shuffle_hangs_on_what_and_not_on_its_order():
    assert shuffled(["a", "b", "c"], 0, "x") == shuffled(["c", "a", "b"], 0, "x")
    assert len({tuple(shuffled("abcd", 0, str(i))) for i in range(50)}) > 10
