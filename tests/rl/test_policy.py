import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.models.audio_lm import bind
from sari_jax.rl.policy import completion_logprobs, reference_logprobs

QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
ANSWERS = tiny.answers((5, 3, 8, 6, 1, 7), 4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropies_as_transformers(temperature, one_tiny, recorded):
    """Each completion after its own copy of the prompt there, off one shared prompt here."""
    ids, mask = (x.reshape(2, 3, 8) for x in tiny.padded(ANSWERS, 8))
    model, prompts = bind(one_tiny.config, one_tiny.params), tiny.prompts(QUESTIONS)
    features = model.encode(prompts)
    logprobs, entropies = completion_logprobs(model, prompts, jnp.array(ids), features, temperature)
    reference = reference_logprobs(
        one_tiny.config, one_tiny.params, prompts, jnp.array(ids), features, temperature=temperature
    )
    np.testing.assert_allclose(reference, logprobs, rtol=0, atol=1e-5)

    def find(theirs):
        repeated = [question for question in QUESTIONS for _ in range(3)]
        rows = theirs.completion_scores(
            theirs.of(one_tiny), one_tiny.sizes, repeated, ANSWERS, temperature
        )
        chosen, entropy = zip(*((x, -(s.exp() * s).sum(-1)) for s, x in rows), strict=True)
        return {
            name: np.concatenate([row.detach() for row in found])
            for name, found in (("logprobs", chosen), ("entropies", entropy))
        }

    found = {"logprobs": np.asarray(logprobs)[mask], "entropies": np.asarray(entropies)[mask]}
    for ours, wanted in recorded(found, find):
        for name in found:
            np.testing.assert_allclose(ours[name], wanted[name], rtol=0, atol=1e-4)
