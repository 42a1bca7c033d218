"""Sampling the next token: the settings, and the function that applies them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sari_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Sampling settings; static and hashable, so that equal settings share one compiled program.

    A model's generation_config is never applied: settings that are not given here are off.

    Attributes:
        num_completions: G, completions per prompt.
        max_tokens: T, tokens of the longest completion, end token included.
        temperature: 0 chooses the likeliest token.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability reaches p; 1 keeps all.
        end_ids: tokens that end a completion and belong to it.
        pad_id: the token after the end.
    """

    num_completions: int
    max_tokens: int
    end_ids: tuple[int, ...]
    pad_id: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        for name, ok, limit in (
            ("num_completions", self.num_completions >= 1, "at least 1"),
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
        ):
            if not ok:
                raise InputError(f"sampling {name} = {getattr(self, name)}: must be {limit}")


@jax.named_scope("sampling")
def sample(
    sampler: Sampler, logits: Float[Array, "N V"], keys: Array
) -> tuple[Int[Array, "N"], Float[Array, "N"]]:
    """Samples one token per row, with one key per row.

    Returns:
        The tokens, and their log-probabilities under softmax(logits / temperature), before top-k and top-p. This is the
        policy that the loss differentiates. At temperature 0, the log-probabilities are those at temperature 1.
    """
    scaled = logits / (sampler.temperature or 1.0)
    if sampler.temperature == 0:
        tokens = jnp.argmax(scaled, axis=-1)
    else:
        tokens = jax.vmap(jax.random.categorical)(
            keys, restrict(scaled, sampler.top_k, sampler.top_p)
        )
    chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), chosen - jax.nn.logsumexp(scaled, axis=-1)


def restrict(logits: Float[Array, "N V"], top_k: int, top_p: float) -> Float[Array, "N V"]:
    """Sets to -inf the logits that top-k and then top-p (nucleus, Holtzman et al. 2020) exclude.

    Logits equal to the smallest kept one are all kept. The likeliest token is always kept.
    """
    if 0 < top_k < logits.shape[-1]:
        smallest = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    if top_p < 1:
        descending = jnp.sort(logits, axis=-1, descending=True)
        # The probability of all likelier tokens.
        before = jnp.cumsum(jax.nn.softmax(descending, axis=-1), axis=-1) - jax.nn.softmax(
            descending, axis=-1
        )
        smallest = jnp.min(jnp.where(before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    return logits
