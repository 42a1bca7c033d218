"""How likely a policy finds given completions: the forward pass that reference scoring and the update share."""

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
    """Log-probabilities and entropies of the temperature-scaled policy, each prompt computed once."""
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
    """Under parameters held fixed: the reference's, or the policy's before its first update. No gradient is kept."""
    return completion_logprobs(bind(config, params), prompts, tokens, features, temperature)[0]
