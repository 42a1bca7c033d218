"""The benchmark's work done by this package, in a process of its own: see `bench`."""

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sari_jax.data.processor import Batch, Shapes
from sari_jax.generate.rollout import Completions, encode, rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.hf.config import read_config
from sari_jax.hf.load import load_params
from sari_jax.models.audio_lm import Prompts
from sari_jax.programs import prepare
from sari_jax.rl.policy import reference_logprobs
from sari_jax.scale.serve import confine, serve
from sari_jax.scale.work import AUDIO_ID, RATE, read
from sari_jax.train.config import Grpo, Optimizer
from sari_jax.train.optimizer import make_optimizer, merge, partition
from sari_jax.train.state import create_state
from sari_jax.train.updates import Rollout, SftPart, grpo_update, sft_update

LONGEST, SHAPES = 30 * RATE, Shapes()


def phases(directory: Path, tower: str) -> dict[str, Callable[[], object]]:
    """Each phase as a function that returns arrays to wait for. The state goes from update to update."""
    work, batch = read(directory)
    config = read_config(directory / "model")
    params = load_params(directory / "model", config)
    trained = ("*",) if tower == "trained" else ("projector/*", "decoder/*")
    trainable, frozen = partition(jax.tree.map(jnp.copy, params), trained)
    optimizer = make_optimizer(Optimizer(), steps=1000)
    # Placed, as an update's result is: else the second update compiles again.
    state = jax.device_put(create_state(trainable, optimizer), jax.devices()[0])
    settings = Grpo(num_completions=work.num_completions)
    sampler = Sampler(work.num_completions, work.new_tokens, (), 0)
    prompts = jax.device_put(_question(batch).prompts)
    tokens = jnp.array(batch["completions"][None])
    advantages, key = jnp.array(batch["advantages"][None]), jax.random.key(0)
    lengths = jnp.full(tokens.shape[:2], work.new_tokens, jnp.int32)
    done = Completions(tokens, jnp.zeros(tokens.shape), lengths, jnp.ones(tokens.shape[:2], bool))
    parts = [
        jax.device_put(SftPart(part.prompts, part.answers, part.answer_mask))
        for part in _examples(batch).parts(work.sft_parts, SHAPES)
    ]

    def features(prompts: Prompts) -> jax.Array | None:
        """A frozen tower's output, once for the whole step."""
        return None if tower == "trained" else encode(config, params, prompts)

    def sample(known: jax.Array | None) -> object:
        policy = merge(state.params, frozen)
        return rollout(config, sampler, policy, prompts, jnp.arange(1), key, known)

    def reference(known: jax.Array | None) -> jax.Array:
        return reference_logprobs(config, params, prompts, tokens, known)

    def update(kept: jax.Array, known: jax.Array | None) -> dict[str, jax.Array]:
        nonlocal state
        rollout = Rollout(prompts, done, known, kept, advantages=advantages)
        state, metrics = grpo_update(
            state, frozen, rollout, config=config, settings=settings, optimizer=optimizer
        )
        return metrics

    def sft() -> dict[str, jax.Array]:
        nonlocal state
        heard = [part._replace(features=features(part.prompts)) for part in parts]
        state, metrics = sft_update(state, frozen, heard, config=config, optimizer=optimizer)
        return metrics

    def whole() -> object:
        known = features(prompts)
        return sample(known), update(reference(known), known)

    kept = reference(None)
    return {
        "rollout": lambda: sample(features(prompts)),
        "reference": lambda: reference(features(prompts)),
        "update": lambda: update(kept, features(prompts)),
        "grpo_step": whole,
        "sft_step": sft,
    }


def _question(batch: dict[str, np.ndarray]) -> Batch:
    tokens, samples = batch["tokens"], len(batch["waveform"])
    prompts = _prompts(
        tokens[None], np.array([len(tokens)]), batch["waveform"][None], np.array([samples])
    )
    return Batch(prompts, np.arange(1), ()).only(np.arange(1), SHAPES)


def _examples(batch: dict[str, np.ndarray]) -> Batch:
    answers, lengths = batch["sft_answers"][:, None], batch["sft_answer_lengths"]
    prompts = _prompts(
        batch["sft_tokens"], batch["sft_lengths"], batch["sft_waveforms"], batch["sft_samples"]
    )
    mask = np.arange(answers.shape[-1]) < lengths[:, None, None]
    rows = np.arange(len(answers))
    return Batch(prompts, rows, (), answers, mask).only(rows, SHAPES)


def _prompts(
    tokens: np.ndarray, lengths: np.ndarray, waveforms: np.ndarray, samples: np.ndarray
) -> Prompts:
    """Of one clip each, in the largest shapes; a run's own sizes are chosen from there."""
    tokens = np.pad(tokens, ((0, 0), (0, LONGEST // 640 + 1024 - tokens.shape[1])))
    places = tokens == AUDIO_ID
    return Prompts(
        tokens,
        lengths.astype(np.int32),
        np.where(places, np.cumsum(places, axis=1) - 1, -1).astype(np.int32),
        np.pad(waveforms, ((0, 0), (0, LONGEST - waveforms.shape[1])))[:, None],
        samples.astype(np.int32)[:, None],
    )


if __name__ == "__main__":
    confine(read(Path(sys.argv[1]))[0].threads)
    prepare()
    made = phases(Path(sys.argv[1]), sys.argv[2])
    serve({name: lambda run=run: jax.block_until_ready(run()) for name, run in made.items()})
