import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sari_jax.models.audio_lm import bind
from sari_jax.sft.loss import sft_loss


def loss_and_gradient(model, questions, answers, size=8):
    ids, mask = tiny.padded(answers, size)

    @jax.jit
    def run(params, prompts, ids, mask):
        return jax.value_and_grad(
            lambda p: sft_loss(bind(model.config, p), prompts, ids, mask), has_aux=True
        )(params)

    prompts = tiny.prompts(questions, tokens=64)
    (loss, metrics), gradient = run(
        model.params, prompts, jnp.array(ids[:, None]), jnp.array(mask[:, None])
    )
    return float(loss), metrics, tiny.flatten(gradient)


RAGGED = tiny.ragged(), tiny.answers((5, 3, 8))


@pytest.fixture
def of_ragged(tiny_model):
    """Loss, metrics and gradient of one batch: compiling them counts for no test."""
    return loss_and_gradient(tiny_model, *RAGGED)


@tiny.each_model("grouped_128_tied")
def test_loss_and_every_gradient_as_transformers(tiny_model, of_ragged, recorded):
    """Through the head, both stacks, the projector, the tower's positions and its convolutions.

    No tensor's gradient vanishes by symmetry: the tower's keys have no bias, and the decoder's are rotated.
    """
    loss, metrics, gradient = of_ragged
    assert metrics["tokens"] == 16 and metrics["loss"] == loss

    def find(theirs):
        loss = theirs.sft_loss(tiny_model, *RAGGED)
        return {"loss": loss.detach(), **theirs.gradients(tiny_model, loss)}

    for ours, wanted in recorded({"loss": loss, **gradient}, find):
        assert float(ours.pop("loss")) == pytest.approx(float(wanted.pop("loss")), rel=1e-5)
        tiny.assert_close(ours, wanted, 1e-4)


def test_padding_counts_nowhere(one_tiny):
    """The mean is over tokens, not rows; a row without tokens adds nothing, whatever its ids are."""
    questions = tiny.ragged()
    answers = tiny.answers((5, 3, 8))
    prompts = tiny.prompts(questions, tokens=64)
    noise = np.random.default_rng(0).standard_normal((3, 3, 25, one_tiny.sizes.tower_width))
    features = jnp.asarray(noise, jnp.float32)

    @jax.jit
    def run(ids, mask):
        return sft_loss(
            bind(one_tiny.config, one_tiny.params), prompts, ids[:, None], mask[:, None], features
        )[0]

    ids, mask = tiny.padded(answers, 8)
    ids, mask = jnp.array(ids), jnp.array(mask)
    whole = float(run(ids, mask))
    changed = jnp.where(mask, ids, 77)
    assert float(run(changed, mask)) == pytest.approx(whole, abs=1e-6)
    rows = [float(run(ids, mask & (jnp.arange(3) == row)[:, None])) for row in range(3)]
    assert whole == pytest.approx(np.dot(rows, [5, 3, 8]) / 16, rel=1e-5)
    assert run(ids, jnp.zeros_like(mask)) == 0
