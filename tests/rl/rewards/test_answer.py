import pytest

from sari_jax.data.styles import STYLES
from sari_jax.rl.rewards.answer import accuracy_reward, format_reward

FREE = STYLES["free"]


@pytest.mark.parametrize(
    ("completion", "form", "accuracy"),
    [
        ("<think>It barks.</think><answer>dog</answer>", 1, 1),
        ("<think>It barks.</think><answer>(B) Dog.</answer>", 1, 1),
        ("<think>It barks.</think><answer>cat</answer>", 1, 0),
        ("<think>It barks.</think><answer>cat dog hen</answer>", 1, 0),
        ("<answer>dog</answer>", 0, 1),
        ("<answer>cat</answer><answer>dog</answer>", 0, 1),
        ("<think>It barks.</think><answer></answer>", 0, 0),
        ("It is a dog.", 0, 0),
        ("", 0, 0),
    ],
)
def test_form_and_answer(completion, form, accuracy, make_record):
    assert format_reward(completion, make_record(), FREE) == form
    assert accuracy_reward(completion, make_record(), FREE) == accuracy


def test_a_right_choice_given_twice_is_right(make_record):
    twice = make_record(choices=("dog", "cat", "dog"), answer_index=2)
    assert accuracy_reward("<answer>dog</answer>", twice, FREE) == 1.0
    assert accuracy_reward("<answer>cat</answer>", twice, FREE) == 0.0
