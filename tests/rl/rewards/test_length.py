import math

import pytest

from sari_jax.data.styles import STYLES
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.length import length_reward, overlong_reward

DIRECT = STYLES["direct"]


def reward(kind, tokens, make_record, answer="dog", limit=100):
    completion = Completion(f"<answer>{answer}</answer>", tokens, limit)
    return kind(completion, make_record(), DIRECT)


@pytest.mark.parametrize(
    ("tokens", "right", "wrong"),
    [(0, 1.0, -1.0), (50, 0.75, -0.75), (100, -1.0, -1.0)],
)
def test_along_a_cosine(tokens, right, wrong, make_record):
    assert reward(length_reward, tokens, make_record) == pytest.approx(right)
    assert reward(length_reward, tokens, make_record, "cat") == pytest.approx(wrong)


def test_the_formula_of_the_paper(make_record):
    """CosFn(t, T, eta_min, eta_max) = eta_min + (eta_max - eta_min) (1 + cos(t pi / T)) / 2, eta_max at t = 0."""
    for tokens in range(1, 100):
        cosine = (1 + math.cos(tokens * math.pi / 100)) / 2
        assert reward(length_reward, tokens, make_record) == pytest.approx(0.5 + 0.5 * cosine)
        wrong = reward(length_reward, tokens, make_record, "cat")
        assert wrong == pytest.approx(-0.5 - 0.5 * cosine)


def test_shorter_is_better_if_right_and_longer_if_wrong(make_record):
    right = [reward(length_reward, t, make_record) for t in range(100)]
    wrong = [reward(length_reward, t, make_record, "hen") for t in range(100)]
    assert right == sorted(right, reverse=True) and wrong == sorted(wrong)
    assert min(right) > max(wrong) and len(set(right)) == 100


@pytest.mark.parametrize(
    ("tokens", "expected"),
    # DAPO's own: 16,384 tokens and a cache of 4,096.
    [(1, 0.0), (16_384, 0.0), (16_385, -1 / 4096), (18_432, -0.5), (20_480, -1.0)],
)
def test_overlong_as_in_dapo(tokens, expected, make_record):
    found = reward(overlong_reward, tokens, make_record, limit=20_480)
    assert found == pytest.approx(expected, abs=1e-9)
