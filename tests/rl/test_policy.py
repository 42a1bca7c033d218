import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import torch

from sari_jax.models.audio_lm import bind
from sari_jax.rl.policy import completion_logprobs, reference_logprobs

QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
ANSWERS = tiny.answers((5, 3, 8, 6, 1, 7), 4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropies_as_transformers(temperature, one_tiny):
    """Each completion after its own copy of the prompt there, off one shared prompt here."""
    ids, mask = (x.reshape(2, 3, 8) for x in tiny.padded(ANSWERS, 8))
    model, prompts = bind(one_tiny.config, one_tiny.params), tiny.prompts(QUESTIONS)
    features = model.encode(prompts)
    logprobs, entropies = completion_logprobs(model, prompts, jnp.array(ids), features, temperature)
    reference = reference_logprobs(
        one_tiny.config, one_tiny.params, prompts, jnp.array(ids), features, temperature=temperature
    )
    np.testing.assert_allclose(reference, logprobs, rtol=0, atol=1e-5)

    repeated = [question for question in QUESTIONS for _ in range(3)]
    inputs = tiny.torch_inputs(one_tiny.sizes, repeated, ANSWERS)
    labels = inputs.pop("labels")
    with torch.no_grad():
        theirs = (one_tiny.theirs(**inputs).logits / temperature).log_softmax(-1)
    for row in range(6):
        places = torch.nonzero(labels[row] != -100)[:, 0]
        scores = theirs[row, places - 1]
        chosen = scores.gather(-1, labels[row, places][:, None])[:, 0].numpy()
        entropy = -(scores.exp() * scores).sum(-1).numpy()
        where = (row // 3, row % 3, slice(0, len(places)))
        np.testing.assert_allclose(logprobs[where], chosen, rtol=0, atol=1e-4)
        np.testing.assert_allclose(entropies[where], entropy, rtol=0, atol=1e-4)
        assert mask[where].all()
