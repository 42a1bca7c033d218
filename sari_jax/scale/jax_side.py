"""The benchmark's work done by this package; see `bench`."""

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

# The most samples of a clip.
LONGEST = 30 * RATE
SHAPES = Shapes()


def phases(directory: Path, tower: str) -> dict[str, Callable[[], object]]:
    """Returns each phase as a function, whose result holds arrays to wait for."""
    return JaxSide(directory, tower).phases()


class JaxSide:
    """The model, its training state and the batch, with a method for each phase.

    The state goes from update to update.

    Args:
        directory: the work as `work.make` writes it.
        tower: trained or frozen.
    """

    def __init__(self, directory: Path, tower: str):
        work, batch = read(directory)
        self.config = read_config(directory / "model")
        self.tower_learns = tower == "trained"
        self.params = load_params(directory / "model", self.config)
        trained = ("*",) if self.tower_learns else ("projector/*", "decoder/*")
        trainable, self.frozen = partition(jax.tree.map(jnp.copy, self.params), trained)
        self.optimizer = make_optimizer(Optimizer(), steps=1000)
        # On the device, as an update's result is; otherwise the second update would compile again.
        self.state = jax.device_put(create_state(trainable, self.optimizer), jax.devices()[0])
        group = work.num_completions
        self.settings = Grpo(num_completions=group)
        self.sampler = Sampler(
            num_completions=group, max_tokens=work.new_tokens, end_ids=(), pad_id=0
        )
        self.prompts = jax.device_put(_question(batch).prompts)
        self.tokens = jnp.array(batch["completions"][None])
        self.advantages = jnp.array(batch["advantages"][None])
        self.key = jax.random.key(0)
        rows = self.tokens.shape[:2]
        self.completions = Completions(
            tokens=self.tokens,
            logprobs=jnp.zeros(self.tokens.shape),
            lengths=jnp.full(rows, work.new_tokens, jnp.int32),
            done=jnp.ones(rows, bool),
        )
        self.parts = [
            jax.device_put(SftPart(part.prompts, part.answers, part.answer_mask))
            for part in _examples(batch).parts(work.sft_parts, SHAPES)
        ]

    def phases(self) -> dict[str, Callable[[], object]]:
        reference_logprobs = self.reference(None)
        return {
            "rollout": lambda: self.rollout(self.features(self.prompts)),
            "reference": lambda: self.reference(self.features(self.prompts)),
            "update": lambda: self.update(reference_logprobs, self.features(self.prompts)),
            "grpo_step": self.grpo_step,
            "sft_step": self.sft_step,
        }

    def features(self, prompts: Prompts) -> jax.Array | None:
        """Returns a frozen tower's output, computed once for the whole step; None if the tower learns."""
        return None if self.tower_learns else encode(self.config, self.params, prompts)

    def rollout(self, features: jax.Array | None) -> object:
        """Samples G completions of T tokens."""
        policy = merge(self.state.params, self.frozen)
        seeds = jnp.arange(1)
        return rollout(self.config, self.sampler, policy, self.prompts, seeds, self.key, features)

    def reference(self, features: jax.Array | None) -> jax.Array:
        """Returns the log-probabilities [1, G, T] of the completions under the reference."""
        return reference_logprobs(self.config, self.params, self.prompts, self.tokens, features)

    def update(
        self, reference_logprobs: jax.Array, features: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Takes one step down the gradient of GRPO's loss."""
        rollout = Rollout(
            prompts=self.prompts,
            completions=self.completions,
            features=features,
            reference=reference_logprobs,
            advantages=self.advantages,
        )
        self.state, metrics = grpo_update(
            self.state,
            self.frozen,
            rollout,
            config=self.config,
            settings=self.settings,
            optimizer=self.optimizer,
        )
        return metrics

    def grpo_step(self) -> object:
        """Samples, scores the batch's completions under the reference, and updates."""
        features = self.features(self.prompts)
        return self.rollout(features), self.update(self.reference(features), features)

    def sft_step(self) -> dict[str, jax.Array]:
        """Takes one step down the gradient of the answers' mean cross-entropy."""
        parts = [part._replace(features=self.features(part.prompts)) for part in self.parts]
        self.state, metrics = sft_update(
            self.state, self.frozen, parts, config=self.config, optimizer=self.optimizer
        )
        return metrics


def _question(batch: dict[str, np.ndarray]) -> Batch:
    tokens, samples = batch["tokens"], len(batch["waveform"])
    prompts = _prompts(
        tokens[None], np.array([len(tokens)]), batch["waveform"][None], np.array([samples])
    )
    return Batch(prompts=prompts, indices=np.arange(1), records=()).only(np.arange(1), SHAPES)


def _examples(batch: dict[str, np.ndarray]) -> Batch:
    answers, lengths = batch["sft_answers"][:, None], batch["sft_answer_lengths"]
    prompts = _prompts(
        batch["sft_tokens"], batch["sft_lengths"], batch["sft_waveforms"], batch["sft_samples"]
    )
    mask = np.arange(answers.shape[-1]) < lengths[:, None, None]
    rows = np.arange(len(answers))
    return Batch(prompts=prompts, indices=rows, records=(), answers=answers, answer_mask=mask).only(
        rows, SHAPES
    )


def _prompts(
    tokens: np.ndarray, lengths: np.ndarray, waveforms: np.ndarray, samples: np.ndarray
) -> Prompts:
    """Returns prompts with one clip each in the largest shapes; `Batch.only` and `parts` choose smaller ones."""
    tokens = np.pad(tokens, ((0, 0), (0, LONGEST // 640 + 1024 - tokens.shape[1])))
    is_audio = tokens == AUDIO_ID
    frames = np.where(is_audio, np.cumsum(is_audio, axis=1) - 1, -1)
    clips = np.where(is_audio, 0, -1)
    return Prompts(
        tokens=tokens,
        lengths=lengths.astype(np.int32),
        audio_index=np.stack([clips, frames], axis=-1).astype(np.int32),
        waveforms=np.pad(waveforms, ((0, 0), (0, LONGEST - waveforms.shape[1])))[:, None],
        samples=samples.astype(np.int32)[:, None],
    )


if __name__ == "__main__":
    confine(read(Path(sys.argv[1]))[0].threads)
    prepare()
    made = phases(Path(sys.argv[1]), sys.argv[2])
    serve({name: lambda run=run: jax.block_until_ready(run()) for name, run in made.items()})
