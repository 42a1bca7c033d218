import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.generate.rollout import encode
from sari_jax.models.audio_lm import bind
from sari_jax.rl.policy import completion_logprobs, reference_logprobs

QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
ANSWERS = tiny.answers((5, 3, 8, 6, 1, 7), 4)


TEMPERATURE = 0.7
PROMPTS = tiny.prompts(QUESTIONS)
IDS, MASK = (x.reshape(2, 3, 8) for x in tiny.padded(ANSWERS, 8))


@pytest.fixture(scope="module")
def features(one_tiny):
    return encode(one_tiny.config, one_tiny.params, PROMPTS)


def reference(model, prompts, tokens, features):
    given = prompts, jnp.array(tokens), features
    return reference_logprobs(model.config, model.params, *given, temperature=TEMPERATURE)


@pytest.mark.numerics
def test_logprobs_and_entropies_as_transformers(one_tiny, features, recorded):
    """Each completion after its own copy of the prompt there, off one shared prompt here."""

    @jax.jit
    def scores(params, features):
        model = bind(one_tiny.config, params)
        return completion_logprobs(model, PROMPTS, jnp.array(IDS), features, TEMPERATURE)

    logprobs, entropies = scores(one_tiny.params, features)
    held_still = reference(one_tiny, PROMPTS, IDS, features)
    np.testing.assert_allclose(held_still, logprobs, rtol=0, atol=1e-5)

    def find(theirs):
        repeated = [question for question in QUESTIONS for _ in range(3)]
        rows = theirs.completion_scores(
            theirs.of(one_tiny), one_tiny.sizes, repeated, ANSWERS, TEMPERATURE
        )
        chosen, entropy = zip(*((x, -(s.exp() * s).sum(-1)) for s, x in rows), strict=True)
        return {
            name: np.concatenate([row.detach() for row in found])
            for name, found in (("logprobs", chosen), ("entropies", entropy))
        }

    found = {"logprobs": np.asarray(logprobs)[MASK], "entropies": np.asarray(entropies)[MASK]}
    for ours, wanted in recorded(found, find):
        for name in found:
            np.testing.assert_allclose(ours[name], wanted[name], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def whole(one_tiny, features):
    """Log-probabilities of all completions, [3, 3, 5] or so."""
    return reference(one_tiny, PROMPTS, IDS, features)


@pytest.mark.parametrize(
    ("rows", "group"), [(2, 3), *(pytest.param(1, n, marks=pytest.mark.numerics) for n in (1, 2))]
)
def test_completions_of_one_token_are_the_first_tokens_of_longer_ones(
    rows, group, one_tiny, features, whole
):
    whole = whole[:rows, :group, :1]
    first = IDS[:rows, :group, :1]
    found = reference(one_tiny, jax.tree.map(lambda x: x[:rows], PROMPTS), first, features[:rows])
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)
