import pytest

from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.registry import REWARDS, make_scorer, parse_weights

FREE = STYLES["free"]


def completion(text="<think>It barks.</think><answer>dog</answer>"):
    return Completion(text, 5, 50)


def test_weights_are_read():
    shares = ("accuracy=2", "format=0.5", "overlong=-1")
    assert parse_weights(shares) == {"accuracy": 2.0, "format": 0.5, "overlong": -1.0}


@pytest.mark.parametrize(
    "share", ["accuracy", "accuracy=", "=1", "accuracy=high", "a b=1", "a=nan"]
)
def test_a_share_that_does_not_read(share):
    with pytest.raises(InputError, match="does not read NAME=WEIGHT"):
        parse_weights((share,))


def test_a_name_that_comes_twice():
    with pytest.raises(
        InputError, match="'accuracy=2' does not read NAME=WEIGHT; .*, and each name once"
    ):
        parse_weights(("accuracy=1", "accuracy=2"))


@pytest.mark.parametrize("name", ["loss", "step", "text", "total", "seconds_mine"])
def test_a_name_that_a_run_writes_already(name):
    with pytest.raises(
        InputError,
        match=f"{name!r} is the name of another metric of a run; give the reward another name",
    ):
        parse_weights((f"{name}=1",))


def test_each_reward_by_name_and_their_sum_by_the_weights(make_record):
    scorer = make_scorer({"format": 0.5, "accuracy": 2.0})
    right, wrong = completion(), completion("<think>It meows.</think><answer>cat</answer>")
    assert scorer(right, make_record(), FREE) == {"format": 1.0, "accuracy": 1.0, "total": 2.5}
    assert scorer(wrong, make_record(), FREE) == {"format": 1.0, "accuracy": 0.0, "total": 0.5}


def test_accuracy_is_computed_without_a_weight(make_record):
    scored = make_scorer({"format": 1.0})(completion(), make_record(), FREE)
    assert scored == {"format": 1.0, "accuracy": 1.0, "total": 1.0}


def test_all_that_there_are(make_record):
    scored = make_scorer(dict.fromkeys(REWARDS, 1.0))(completion(), make_record(), FREE)
    assert set(scored) == {*REWARDS, "total"}
    assert scored["total"] == pytest.approx(sum(scored[name] for name in REWARDS))


def test_an_unknown_reward_is_refused():
    with pytest.raises(
        InputError, match="'brevity' is unknown; choose accuracy, format, .*reward_file"
    ):
        make_scorer({"brevity": 1.0})


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "def brevity(completion, record, style):\n    return 1 - completion.num_tokens / completion.limit\n"
        "def broken(completion, record, style):\n    return 1 / 0\n"
        "def endless(completion, record, style):\n    return float('inf')\n"
        "def wordy(completion, record, style):\n    return 'much'\n"
    )
    return str(path)


def test_a_users_own(own, make_record):
    scorer = make_scorer({"accuracy": 1.0, "brevity": 0.5}, own)
    scored = scorer(completion(), make_record(), FREE)
    assert scored == {"accuracy": 1.0, "brevity": 0.9, "total": pytest.approx(1.45)}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken", "reward 'broken' failed on a completion of record r1: ZeroDivisionError"),
        ("endless", "reward 'endless' of a completion of record r1 is inf, not a finite number"),
        ("wordy", "reward 'wordy' failed on a completion of record r1: ValueError"),
    ],
)
def test_a_users_own_that_gives_no_number(own, name, told, make_record):
    scorer = make_scorer({name: 1.0}, own)
    with pytest.raises(InputError, match=told):
        scorer(completion(), make_record(), FREE)
