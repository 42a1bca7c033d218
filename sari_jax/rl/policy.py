"""Log-probabilities of given completions: the forward pass that reference scoring and the update share."""

import functools

import jax
from jaxtyping import Array, Float, Int

from sari_jax.models.audio_lm import AudioLM, Params, Prompts, bind
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.logprobs import chunked_logprobs


def completion_logprobs(
    model: AudioLM,
    prompts: Prompts,
    tokens: Int[Array, "B G T"],
    features: Float[Array, "B A F D"] | None,
    temperature: float,
) -> tuple[Float[Array, "B G T"], Float[Array, "B G T"]]:
    """Computes log-probabilities and entropies of the temperature-scaled policy, at every completion token.

        log softmax(logits / temperature)

    Each prompt is computed once for its G completions.

    Args:
        model: with its parameters.
        prompts: B of them.
        tokens: G completions of each prompt.
        features: the audio tower's output; None computes it from the prompts' waveforms.
        temperature: at which the completions were sampled.

    Returns:
        The log-probability of each completion token, and the entropy in nats of the distribution it is drawn from.
    """
    hidden = model.hidden(prompts, tokens, features)
    return chunked_logprobs(hidden, model.decoder.unembedding, tokens, temperature=temperature)


@functools.partial(jax.jit, static_argnames=("config", "temperature"))
def reference_logprobs(
    config: AudioLMConfig,
    params: Params,
    prompts: Prompts,
    tokens: Int[Array, "B G T"],
    features: Float[Array, "B A F D"] | None = None,
    *,
    temperature: float = 1.0,
) -> Float[Array, "B G T"]:
    """Computes log-probabilities under parameters that do not learn; no gradient is kept.

    Args:
        config: the model's config.
        params: the parameters of the reference, or of the policy before its first update.
        prompts, tokens, features, temperature: as in `completion_logprobs`.

    Returns:
        The log-probability of each completion token.
    """
    return completion_logprobs(bind(config, params), prompts, tokens, features, temperature)[0]
