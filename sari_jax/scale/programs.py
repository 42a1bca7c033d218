"""The programs that a run compiles, with shapes in place of arrays: neither weights nor chips are needed."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One program of a step.

    Attributes:
        lower: traces the program; the caller compiles what it returns.
        beside: bytes of a chip's memory that are in use while the program runs, other than its arguments.
        flops: FLOPs of the whole mesh, by formula, without what is computed again for the gradient.
        least_bytes: bytes that each chip reads from its memory at least.
        turns: turns of the loop over tokens; 1 if the program has none.
        kernels: whether attention's kernels must be in the compiled module.
    """

    name: str
    lower: Callable[[], Any]
    beside: int
    flops: float
    least_bytes: float
    turns: int = 1
    kernels: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """The size of every prompt."""

    audio_seconds: float = 30.0
    text_tokens: int = 128


def model_config(run: Run) -> AudioLMConfig:
    """Reads the config of the model directory; without one, takes that of `model.size`.

    Raises:
        InputError: neither `model.path` nor `model.size` is set.
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
    """The programs of a run on a topology's chips, where every prompt has the size of `question`.

    Attributes:
        resident: bytes of each chip's memory that the training state takes.

    Raises:
        InputError: the settings are ones that training would refuse on these chips.
    """

    def __init__(self, run: Run, topology: Topology, question: Question = Question()):
        self.run = run
        self.config = model_config(run)
        mesh = run.mesh
        self.mesh = make_mesh(mesh.data, mesh.fsdp, mesh.tensor, devices=topology.devices)
        tensor = self.mesh.shape["tensor"]
        shared = mesh.decode_tensor or tensor
        require(self.config, num_shards=tensor, decoding=shared, platform="tpu")
        num_shards = num_data_shards(self.mesh)
        if run.batch_size % (num_shards * run.micro_batches):
            raise InputError(
                f"config: batch_size = {run.batch_size} does not divide by data x fsdp x micro_batches ="
                f" {num_shards * run.micro_batches}; for one prompt per chip, --config.batch_size={topology.chips}"
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
        shapes = self.run.data.shapes
        longest = self.config.encoder.seconds
        if not 0 < question.audio_seconds <= longest:
            raise InputError(
                f"a clip of {question.audio_seconds} s: must be above 0 and at most {longest} s; change --audio-seconds"
            )
        real = round(question.audio_seconds * SAMPLE_RATE)
        self.samples = clip_size(real, shapes.audio_seconds, longest * SAMPLE_RATE)
        self.frames = frame_counts(real)[0]
        self.tokens = frame_counts(real)[1] + question.text_tokens
        self.places = bucket(self.tokens, shapes, "prompt_tokens")

    @property
    def largest_replicated(self) -> int:
        """Bytes of the largest array of the state that is replicated on every chip."""
        leaves = jax.tree.leaves((self.state, self.frozen, self.reference))
        whole = (bytes_of(x) for x in leaves if x.sharding.is_fully_replicated)
        return max(whole, default=0)

    def all(self) -> list[Program]:
        """Returns the programs in the order of a step; the tower runs once per step unless it learns."""
        return self._grpo() if self.run.stage == "grpo" else self._sft()

    def _sft(self) -> list[Program]:
        """The programs of SFT; sample completions are decoded as GRPO's are."""
        run = self.run
        longest = run.data.shapes.answer_tokens[-1]
        rows = run.batch_size // run.micro_batches
        part = SftPart(
            prompts=self._prompts(rows),
            answers=self._array((rows, 1, longest), jnp.int32),
            mask=self._array((rows, 1, longest), jnp.bool_),
            features=self._features(rows),
        )
        step = functools.partial(
            sft_update,
            config=self.config,
            optimizer=self.optimizer,
            dropout=run.model.adapter.dropout,
            seed=run.seed,
        )
        step = jax.jit(step, donate_argnums=0)
        # Two micro-batches stand for all: more of them take more time and no more memory.
        parts = [part] * min(run.micro_batches, 2)
        forward = rows * group_flops(self.config, self.tokens, [longest])
        prompt_only = rows * group_flops(self.config, self.tokens, [])
        sampler = Sampler(
            num_completions=1, max_tokens=longest, end_ids=(0, 1), pad_id=0, temperature=0.0
        )
        update = self._program(
            "sft",
            lambda: step.lower(self.state, self.frozen, parts),
            (self.state, self._without_tower(self.frozen)),
            len(parts) * self._learning(forward, rows),
            kernels=True,
        )
        decoding = self._decoding(sampler, rows, prompt_only, forward - prompt_only)
        return [*self._encode(rows), *decoding, update]

    def _grpo(self) -> list[Program]:
        """The programs of GRPO."""
        run = self.run
        settings = run.grpo
        rows = run.batch_size
        sampler = Sampler(
            num_completions=settings.num_completions,
            max_tokens=settings.max_tokens,
            end_ids=(0, 1),
            pad_id=0,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
        lengths = [settings.max_tokens] * settings.num_completions
        prompt_only = rows * group_flops(self.config, self.tokens, [])
        forward = rows * group_flops(self.config, self.tokens, lengths)
        rollout = self._rollout()
        programs = self._encode(rows)
        programs += self._decoding(sampler, rows, prompt_only, forward - prompt_only)
        if settings.uses_reference:
            programs.append(self._score_reference(rollout, forward))
        if settings.needs_old_logprobs:
            programs.append(self._score_policy(rollout, forward))
        return [*programs, self._grpo_update(rollout, forward)]

    def _rollout(self) -> Rollout:
        """The shapes of what one update learns from."""
        settings = self.run.grpo
        rows = self.run.batch_size
        groups = (rows, settings.num_completions)
        logprobs = self._array((*groups, settings.max_tokens), jnp.float32)
        completions = Completions(
            tokens=self._array((*groups, settings.max_tokens), jnp.int32),
            logprobs=logprobs,
            lengths=self._array(groups, jnp.int32),
            done=self._array(groups, jnp.bool_),
        )
        return Rollout(
            prompts=self._prompts(rows),
            completions=completions,
            features=self._features(rows),
            reference=logprobs if settings.uses_reference else None,
            old=logprobs if settings.needs_old_logprobs else None,
            advantages=self._array(groups, jnp.float32),
            unmoved=jax.ShapeDtypeStruct((), jnp.bool_) if settings.uses_reference else None,
        )

    def _score_reference(self, rollout: Rollout, forward: float) -> Program:
        """The pass for the reference's log-probabilities."""
        frozen = self._without_tower(self.frozen)
        return self._scoring(
            "reference",
            rollout,
            forward,
            config=without_adapter(self.config),
            params=merge(self.reference, self.frozen),
            given=frozen if self.waiting else (self.reference, frozen),
            more=bytes_of(self.waiting),
        )

    def _score_policy(self, rollout: Rollout, forward: float) -> Program:
        """The pass for the old log-probabilities."""
        return self._scoring(
            "old",
            rollout,
            forward,
            config=self.config,
            params=merge(self.state.params, self.frozen),
            given=(self.state.params, self._without_tower(self.frozen)),
        )

    def _scoring(
        self,
        name: str,
        rollout: Rollout,
        forward: float,
        *,
        config: AudioLMConfig,
        params: Any,
        given: Any,
        more: float = 0.0,
    ) -> Program:
        def lower() -> Any:
            tokens = rollout.completions.tokens
            temperature = self.run.grpo.temperature
            return reference_logprobs.lower(
                config, params, rollout.prompts, tokens, rollout.features, temperature=temperature
            )

        flops = forward + self._tower_flops(self.run.batch_size)
        return self._program(name, lower, given, flops, kernels=True, more=more)

    def _grpo_update(self, rollout: Rollout, forward: float) -> Program:
        run = self.run

        def lower() -> Any:
            return grpo_update.lower(
                self.state,
                self.frozen,
                rollout,
                config=self.config,
                settings=run.grpo,
                optimizer=self.optimizer,
                micro_batches=run.micro_batches,
            )

        return self._program(
            "update",
            lower,
            (self.state, self._without_tower(self.frozen)),
            run.grpo.updates_per_rollout * self._learning(forward, run.batch_size),
            kernels=True,
        )

    def _encode(self, rows: int) -> list[Program]:
        """The tower alone. Decoding uses its output, and so does everything else if the tower is frozen."""
        flat = {**self.frozen, **self.state.params}
        tower = {path: x for path, x in flat.items() if path.startswith("tower/")}

        def lower() -> Any:
            return encode.lower(self.config, merge(tower, {}), self._prompts(rows))

        flops = rows * encoder_flops(self.config, self.frames)
        return [self._program("encode", lower, tower, flops, kernels=True)]

    def _decoding(
        self, sampler: Sampler, rows: int, prompt_flops: float, token_flops: float
    ) -> list[Program]:
        """The programs that reshard the policy, process each prompt once, and loop over tokens."""
        layout = DecodingPolicy(self.config, self.decoding)
        flat = layout.needed({**self.frozen, **self.state.params})
        flat_policy = layout.shapes(flat)
        moved = layout.changing(flat)
        # The others keep their layout.
        kept = {path: leaf for path, leaf in flat.items() if path not in moved}
        policy = merge(flat_policy, {})
        programs = []
        if moved:
            programs.append(
                self._program("policy", lambda: layout.program(moved).lower(moved), moved, 0.0)
            )
        programs.append(
            self._program(
                "prefill",
                lambda: self._lower_prefill(policy, rows),
                kept,
                prompt_flops,
                mesh=self.decoding,
                more=bytes_of(flat_policy) - bytes_of(kept),
                kernels=True,
            )
        )
        reads = sampler.max_tokens * self._bytes_per_token(flat_policy, sampler, rows)
        programs.append(
            self._program(
                "decode",
                lambda: self._lower_decode(policy, sampler, rows),
                kept,
                token_flops,
                mesh=self.decoding,
                more=reads - bytes_of(kept),
                turns=sampler.max_tokens,
            )
        )
        return programs

    def _lower_prefill(self, policy: Any, rows: int) -> Any:
        features = self._tower_output(rows, self.decoding)
        return prefill.lower(self.config, policy, self._prompts(rows, self.decoding), features)

    def _lower_decode(self, policy: Any, sampler: Sampler, rows: int) -> Any:
        c = self.config.decoder
        dtype = jnp.dtype(self.config.dtype)
        stored = jax.ShapeDtypeStruct(
            (c.layers, rows, c.kv_heads, self.places, c.head_dim),
            dtype,
            sharding=NamedSharding(self.decoding, spec(None, "batch", "heads")),
        )
        prompt_cache = KVCache(stored, stored)
        hidden = self._array((rows, c.width), dtype, self.decoding)
        lengths = self._array((rows,), jnp.int32, self.decoding)
        key = jax.eval_shape(lambda: jax.random.key(0))
        everywhere = NamedSharding(self.decoding, P())
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere)
        return decode.lower(
            self.config, sampler, policy, lengths, hidden, prompt_cache, lengths, key
        )

    def _bytes_per_token(self, flat_policy: dict[str, Any], sampler: Sampler, rows: int) -> float:
        """Returns the bytes that each chip reads at least for one step of decoding.

        A step reads the weights, each prompt's cache once, and each completion's cache, which is half full on average.
        """
        c = self.config.decoder
        # Of untied embeddings a step reads one row per token, which does not count.
        looked_up = () if c.tied else ("decoder/embed/",)
        weights = bytes_of(
            {
                path: leaf
                for path, leaf in flat_policy.items()
                if not path.startswith(("projector/", *looked_up))
            }
        )
        per_token = 2 * jnp.dtype(self.config.dtype).itemsize * c.layers * c.kv_heads * c.head_dim
        num_shards = num_data_shards(self.decoding) * self.decoding.shape["tensor"]
        cached = rows * (self.tokens + sampler.num_completions * sampler.max_tokens / 2)
        return weights + per_token * cached / num_shards

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
        """Makes a program whose arguments are `given`, a part of the resident state; it reads `more` bytes besides."""

        def traced() -> Any:
            with jax.set_mesh(mesh or self.mesh):
                return lower()

        size = bytes_of(given)
        return Program(
            name=name,
            lower=traced,
            beside=max(0, self.resident - size),
            flops=flops,
            least_bytes=size + more,
            **rest,
        )

    def _learning(self, forward: float, rows: int) -> float:
        """Returns the FLOPs of a forward and backward pass, including the tower's if it learns."""
        projector = rows * projector_flops(self.config, self.frames)
        learns = learning(self.state.params)["learns"]

        def passes(part: str) -> float:
            # If only an adapter learns, the part's own kernels need no gradient.
            return 1 + (BACKWARD if part in learns else BACKWARD / 2)

        tower = passes("tower") * self._tower_flops(rows)
        return passes("decoder") * forward + (1 + BACKWARD) * projector + tower

    def _tower_flops(self, rows: int) -> float:
        """Returns the FLOPs of the tower's forward pass if it learns; else its output is known and they are 0."""
        return rows * encoder_flops(self.config, self.frames) if self.tower_learns else 0.0

    def _placed(self, tree: Any) -> Any:
        """Gives arrays the shardings that training gives them."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            tree,
            parameter_shardings(self.mesh, tree),
        )

    def _without_tower(self, flat: dict[str, Any]) -> dict[str, Any]:
        """Drops the tower's parameters, which XLA drops from a program that does not use them."""
        return {path: x for path, x in flat.items() if not path.startswith("tower/")}

    def _array(
        self, shape: tuple[int, ...], dtype: Any, mesh: Mesh | None = None
    ) -> jax.ShapeDtypeStruct:
        """An array whose first axis is split over data shards."""
        sharding = NamedSharding(mesh or self.mesh, spec("batch"))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def _prompts(self, rows: int, mesh: Mesh | None = None) -> Prompts:
        return Prompts(
            tokens=self._array((rows, self.places), jnp.int32, mesh),
            lengths=self._array((rows,), jnp.int32, mesh),
            audio_index=self._array((rows, self.places, 2), jnp.int32, mesh),
            waveforms=self._array((rows, 1, self.samples), jnp.float32, mesh),
            samples=self._array((rows, 1), jnp.int32, mesh),
        )

    def _features(self, rows: int, mesh: Mesh | None = None) -> jax.ShapeDtypeStruct | None:
        """The tower's output if the tower is frozen; None if it learns."""
        return None if self.tower_learns else self._tower_output(rows, mesh)

    def _tower_output(self, rows: int, mesh: Mesh | None = None) -> jax.ShapeDtypeStruct:
        shape = (rows, 1, self.samples // STRIDE, self.config.encoder.width)
        return self._array(shape, jnp.dtype(self.config.dtype), mesh)


def bytes_of(tree: Any) -> int:
    """Returns the bytes that one chip holds of these arrays."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )
