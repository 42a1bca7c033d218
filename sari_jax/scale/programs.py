"""A run's programs with shapes in the place of arrays: what the loop would compile, without weights or chips."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sari_jax.data.processor import SAMPLE_RATE, STRIDE, bucket, clip_size
from sari_jax.errors import InputError
from sari_jax.generate.layout import DecodingPolicy
from sari_jax.generate.rollout import Completions, decode, encode, prefill
from sari_jax.generate.sampling import Sampler
from sari_jax.hf.config import read_config
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.decoder import KVCache
from sari_jax.models.encoder import frame_counts
from sari_jax.models.kernels import require
from sari_jax.models.lora import is_adapter, without_adapter
from sari_jax.models.sizes import SIZES
from sari_jax.models.work import BACKWARD, encoder_flops, group_flops, projector_flops
from sari_jax.parallel.mesh import (
    decoding_mesh,
    make_mesh,
    num_data_shards,
    parameter_shardings,
    spec,
)
from sari_jax.rl.policy import reference_logprobs
from sari_jax.scale.topology import Topology
from sari_jax.train.config import Run
from sari_jax.train.optimizer import make_optimizer, merge
from sari_jax.train.parameters import learning, shapes_of
from sari_jax.train.reference import dtype_of
from sari_jax.train.state import create_state
from sari_jax.train.updates import Rollout, SftPart, grpo_update, sft_update


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a step.

    Attributes:
        lower: traces it; compiling is the caller's.
        beside: bytes of a chip's memory that are taken while it runs and that it is not given.
        flops: of the whole mesh, by formula; what is computed again for the gradient is not in it.
        least_bytes: that each chip must at least read from its memory.
        turns: of its loop over tokens, where it has one.
        kernels: whether attention's kernels must be in it.
    """

    name: str
    lower: Callable[[], Any]
    beside: int
    flops: float
    least_bytes: float
    turns: int = 1
    kernels: bool = False


@dataclasses.dataclass(frozen=True)
class Question:
    """What each prompt holds."""

    audio_seconds: float = 30.0
    text_tokens: int = 128


def model_config(run: Run) -> AudioLMConfig:
    """From the model directory where there is one, else of `model.size`.

    Raises:
        InputError: neither is given.
    """
    model = run.model
    if model.path:
        return read_config(model.path, **model.network)
    if model.size:
        return dataclasses.replace(SIZES[model.size], **model.network)
    raise InputError(
        f"config: neither model.path nor model.size is set; choose a size of {', '.join(SIZES)}"
    )


class Programs:
    """Of a run over a topology's chips, with every prompt as long as `question` says.

    Raises:
        InputError: settings that the loop would refuse on these chips.
    """

    def __init__(self, run: Run, topology: Topology, question: Question = Question()):
        self.run, self.config = run, model_config(run)
        mesh = run.mesh
        self.mesh = make_mesh(mesh.data, mesh.fsdp, mesh.tensor, devices=topology.devices)
        tensor = self.mesh.shape["tensor"]
        shared = run.mesh.decode_tensor or tensor
        require(self.config, num_shards=tensor, decoding=shared, platform="tpu")
        num_shards = num_data_shards(self.mesh)
        if run.batch_size % (num_shards * run.micro_batches):
            raise InputError(
                f"config: batch_size = {run.batch_size} does not divide by data x fsdp x micro_batches ="
                f" {num_shards * run.micro_batches}; one prompt for each chip is --config.batch_size={topology.chips}"
            )
        self.decoding = decoding_mesh(self.mesh, shared)
        self._lay_out_state()
        self._lay_out_question(question)

    def _lay_out_state(self) -> None:
        run = self.run
        self.optimizer = make_optimizer(run.optimizer, run.updates)
        trainable, frozen = shapes_of(run.model, self.config)
        self.frozen = self._placed(frozen)
        self.state = self._placed(
            jax.eval_shape(lambda params: create_state(params, self.optimizer), trainable)
        )
        self.tower_learns = any(path.startswith("tower/") for path in trainable)
        self.reference = {}
        if run.has_reference:
            narrow = jnp.dtype(dtype_of(run.model))
            self.reference = {
                path: jax.ShapeDtypeStruct(x.shape, narrow, sharding=x.sharding)
                for path, x in self.state.params.items()
                if not is_adapter(path)
            }
        self.waiting = self.reference if run.model.reference_memory == "host" else {}
        self.resident = bytes_of((self.state, self.frozen, self.reference)) - bytes_of(self.waiting)

    def _lay_out_question(self, question: Question) -> None:
        shapes, longest = self.run.data.shapes, self.config.encoder.seconds
        if not 0 < question.audio_seconds <= longest:
            raise InputError(
                f"a clip of {question.audio_seconds} s: must be above 0 and at most {longest} s"
            )
        real = round(question.audio_seconds * SAMPLE_RATE)
        samples = clip_size(real, shapes.audio_seconds, longest * SAMPLE_RATE)
        self.samples, self.frames = samples, frame_counts(real)[0]
        self.tokens = frame_counts(real)[1] + question.text_tokens
        self.places = bucket(self.tokens, shapes, "prompt_tokens")

    @property
    def largest_replicated(self) -> int:
        """Bytes of the largest array of the state that every chip holds whole."""
        leaves = jax.tree.leaves((self.state, self.frozen, self.reference))
        whole = (bytes_of(x) for x in leaves if x.sharding.is_fully_replicated)
        return max(whole, default=0)

    def all(self) -> list[Program]:
        """In the order of a step. The tower runs once for the whole of it, unless it learns."""
        return self._grpo() if self.run.stage == "grpo" else self._sft()

    def _sft(self) -> list[Program]:
        """Sample completions are decoded in the same way as GRPO's. Of `micro_batches` two stand for all."""
        run, longest = self.run, self.run.data.shapes.answer_tokens[-1]
        rows = run.batch_size // run.micro_batches
        row = lambda shape, dtype: self._rows((rows, *shape), dtype)  # noqa: E731
        answers, mask = row((1, longest), jnp.int32), row((1, longest), jnp.bool_)
        part = SftPart(self._prompts(rows), answers, mask, self._features(rows))
        update = functools.partial(
            sft_update,
            config=self.config,
            optimizer=self.optimizer,
            dropout=run.model.adapter.dropout,
            seed=run.seed,
        )
        step = jax.jit(update, donate_argnums=0)
        parts = [part] * min(run.micro_batches, 2)  # more of them take more time and no more memory
        forward = rows * group_flops(self.config, self.tokens, [longest])
        given = (self.state, self._without_tower(self.frozen))
        lower = lambda: step.lower(self.state, self.frozen, parts)  # noqa: E731
        flops = len(parts) * self._learning(forward, rows)
        sampler = Sampler(1, longest, (0, 1), 0, 0.0)
        prompt_only = rows * group_flops(self.config, self.tokens, [])
        return [
            *self._encode(rows),
            *self._decoding(sampler, rows, prompt_only, forward - prompt_only),
            self._program("sft", lower, given, flops, kernels=True),
        ]

    def _grpo(self) -> list[Program]:
        run, settings, config = self.run, self.run.grpo, self.config
        rows, group, size = run.batch_size, settings.num_completions, settings.max_tokens
        sampler = Sampler(
            group, size, (0, 1), 0, settings.temperature, settings.top_k, settings.top_p
        )
        prompts, features = self._prompts(rows), self._features(rows)
        kept = merge(self.reference, self.frozen)
        scores = self._rows((rows, group, size), jnp.float32)
        done = Completions(
            self._rows((rows, group, size), jnp.int32), scores,
            self._rows((rows, group), jnp.int32), self._rows((rows, group), jnp.bool_),
        )  # fmt: skip
        rollout = Rollout(
            prompts, done, features,
            reference=scores if settings.uses_reference else None,
            old=scores if settings.needs_old_logprobs else None,
            advantages=self._rows((rows, group), jnp.float32),
            unmoved=jax.ShapeDtypeStruct((), jnp.bool_) if settings.uses_reference else None,
        )  # fmt: skip
        prompt_only = rows * group_flops(config, self.tokens, [])
        forward = rows * group_flops(config, self.tokens, [size] * group)
        heard = rows * encoder_flops(config, self.frames) if self.tower_learns else 0.0
        frozen = self._without_tower(self.frozen)
        reference = frozen if self.waiting else (self.reference, frozen)
        learning = (self.state, frozen)

        def scoring(
            name: str, config: AudioLMConfig, params: Any, given: Any, **rest: Any
        ) -> Program:
            lower = lambda: reference_logprobs.lower(  # noqa: E731
                config, params, prompts, done.tokens, features, temperature=settings.temperature
            )
            return self._program(name, lower, given, forward + heard, kernels=True, **rest)

        programs = [
            *self._encode(rows),
            *self._decoding(sampler, rows, prompt_only, forward - prompt_only),
        ]
        if settings.uses_reference:
            programs.append(
                scoring(
                    "reference",
                    without_adapter(config),
                    kept,
                    reference,
                    more=bytes_of(self.waiting),
                )
            )
        if settings.needs_old_logprobs:
            policy = merge(self.state.params, self.frozen)
            programs.append(scoring("old", config, policy, (self.state.params, frozen)))
        flops = settings.updates_per_rollout * self._learning(forward, rows)

        def lower() -> Any:
            return grpo_update.lower(
                self.state,
                self.frozen,
                rollout,
                config=config,
                settings=settings,
                optimizer=self.optimizer,
                micro_batches=run.micro_batches,
            )

        return [*programs, self._program("update", lower, learning, flops, kernels=True)]

    def _encode(self, rows: int) -> list[Program]:
        """The tower alone: for decoding, and for everything where it does not learn."""
        flat = {**self.frozen, **self.state.params}
        tower = {path: x for path, x in flat.items() if path.startswith("tower/")}
        lower = lambda: encode.lower(self.config, merge(tower, {}), self._prompts(rows))  # noqa: E731
        flops = rows * encoder_flops(self.config, self.frames)
        return [self._program("encode", lower, tower, flops, kernels=True)]

    def _decoding(
        self, sampler: Sampler, rows: int, prompt_flops: float, token_flops: float
    ) -> list[Program]:
        """The policy laid out anew, each prompt once, and the loop over tokens."""
        config, c, group = self.config, self.config.decoder, sampler.num_completions
        layout = DecodingPolicy(config, self.decoding)
        flat = layout.needed({**self.frozen, **self.state.params})
        flat_policy = layout.shapes(flat)
        moved = layout.changing(flat)
        kept = {path: leaf for path, leaf in flat.items() if path not in moved}  # as they lie
        policy = merge(flat_policy, {})
        prompts, features = (make(rows, self.decoding) for make in (self._prompts, self._features))
        if features is None:
            features = self._tower_output(rows, self.decoding)
        row = lambda shape, dtype: self._rows((rows, *shape), dtype, self.decoding)  # noqa: E731
        dtype = jnp.dtype(config.dtype)
        placed = NamedSharding(self.decoding, spec(None, "batch", "heads"))
        stored = jax.ShapeDtypeStruct(
            (c.layers, rows, c.kv_heads, self.places, c.head_dim), dtype, sharding=placed
        )
        prompt_cache, hidden = KVCache(stored, stored), row((c.width,), dtype)
        everywhere = NamedSharding(self.decoding, P())
        key = jax.eval_shape(lambda: jax.random.key(0))
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere)
        lengths = row((), jnp.int32)
        # A step reads the weights, each prompt's keys, and each completion's own, half of them on average.
        looked_up = () if c.tied else ("decoder/embed/",)  # a row for each token, and not the whole
        multiplied = {
            path: leaf
            for path, leaf in flat_policy.items()
            if not path.startswith(("projector/", *looked_up))
        }
        weights = bytes_of(multiplied)
        token = 2 * dtype.itemsize * c.layers * c.kv_heads * c.head_dim
        num_shards = num_data_shards(self.decoding) * self.decoding.shape["tensor"]
        seen = rows * (self.tokens + group * sampler.max_tokens / 2)
        laid_out = lambda: layout.program(moved).lower(moved)  # noqa: E731
        return [
            *([self._program("policy", laid_out, moved, 0.0)] if moved else []),
            self._program(
                "prefill",
                lambda: prefill.lower(config, policy, prompts, features),
                kept,
                prompt_flops,
                mesh=self.decoding,
                more=bytes_of(flat_policy) - bytes_of(kept),
                kernels=True,
            ),
            self._program(
                "decode",
                lambda: decode.lower(
                    config, sampler, policy, lengths, hidden, prompt_cache, lengths, key
                ),
                kept,
                token_flops,
                mesh=self.decoding,
                more=sampler.max_tokens * (weights + token * seen / num_shards) - bytes_of(kept),
                turns=sampler.max_tokens,
            ),
        ]

    def _program(
        self,
        name: str,
        lower: Callable[[], Any],
        given: Any,
        flops: float,
        *,
        mesh: Mesh | None = None,
        more: float = 0.0,
        **rest: Any,
    ) -> Program:
        """A program that is given these parts of what stays on the chips, and reads `more` bytes besides."""

        def traced() -> Any:
            with jax.set_mesh(mesh or self.mesh):
                return lower()

        own = bytes_of(given)
        return Program(name, traced, max(0, self.resident - own), flops, own + more, **rest)

    def _learning(self, forward: float, rows: int) -> float:
        """FLOPs of a differentiated pass, the tower's too where it learns."""
        placed = rows * projector_flops(self.config, self.frames)
        heard = rows * encoder_flops(self.config, self.frames) if self.tower_learns else 0.0
        own = learning(self.state.params)["learns"]
        # Where an adapter alone learns, its kernels have no gradient.
        times = lambda part: 1 + (BACKWARD if part in own else BACKWARD / 2)  # noqa: E731
        return times("decoder") * forward + (1 + BACKWARD) * placed + times("tower") * heard

    def _placed(self, tree: Any) -> Any:
        """Shapes where the table lays such arrays."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            tree,
            parameter_shardings(self.mesh, tree),
        )

    def _without_tower(self, flat: dict[str, Any]) -> dict[str, Any]:
        """XLA leaves out of a program what it does not use."""
        return {path: x for path, x in flat.items() if not path.startswith("tower/")}

    def _rows(
        self, shape: tuple[int, ...], dtype: Any, mesh: Mesh | None = None
    ) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh or self.mesh, spec("batch"))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def _prompts(self, rows: int, mesh: Mesh | None = None) -> Prompts:
        row = lambda shape, dtype: self._rows((rows, *shape), dtype, mesh)  # noqa: E731
        return Prompts(
            row((self.places,), jnp.int32),
            row((), jnp.int32),
            row((self.places,), jnp.int32),
            row((1, self.samples), jnp.float32),
            row((1,), jnp.int32),
        )

    def _features(self, rows: int, mesh: Mesh | None = None) -> jax.ShapeDtypeStruct | None:
        """The tower's output, where it is known before the update."""
        return None if self.tower_learns else self._tower_output(rows, mesh)

    def _tower_output(self, rows: int, mesh: Mesh | None = None) -> jax.ShapeDtypeStruct:
        shape = (rows, 1, self.samples // STRIDE, self.config.encoder.width)
        return self._rows(shape, jnp.dtype(self.config.dtype), mesh)


def bytes_of(tree: Any) -> int:
    """What one chip holds of these shapes."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )
