import pytest

from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.rl.rewards import REWARDS, score

EVEN = {"format": 1.0, "accuracy": 1.0}
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
def test_score(completion, form, accuracy, make_record):
    assert score(completion, make_record(), FREE, EVEN) == {
        "format": form,
        "accuracy": accuracy,
        "total": form + accuracy,
    }


@pytest.mark.parametrize("style", STYLES.values(), ids=list(STYLES))
def test_a_supervised_target_earns_everything(style, make_record):
    record = make_record()
    assert score(style.render(record), record, style, EVEN)["total"] == len(REWARDS)


def test_a_right_choice_given_twice_is_right(make_record):
    twice = make_record(choices=("dog", "cat", "dog"), answer_index=2)
    assert score("<answer>dog</answer>", twice, FREE, EVEN)["accuracy"] == 1.0
    assert score("<answer>cat</answer>", twice, FREE, EVEN)["accuracy"] == 0.0


def test_weights(make_record):
    text = FREE.render(make_record())
    scored = score(text, make_record(), FREE, {"format": 0.5, "accuracy": 2.0})
    assert scored == {"format": 1.0, "accuracy": 1.0, "total": 2.5}
    assert score(text, make_record(), FREE, {"accuracy": 2.0})["total"] == 2.0


def test_an_unknown_weight_is_refused(make_record):
    with pytest.raises(InputError, match="reward 'length' is unknown; choose format, accuracy"):
        score("", make_record(), FREE, {"length": 1.0})
