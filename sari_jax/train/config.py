"""A run's settings: ml_collections files at the door, frozen dataclasses inside.

Values marked "ours" are this project's: the SARI paper publishes no hyperparameters.
"""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Callable, Iterable
from typing import Any

from ml_collections import ConfigDict

from sari_jax.data.curriculum import ADAPTIVE, ORDERS, Curriculum
from sari_jax.data.processor import Shapes
from sari_jax.data.styles import STYLES
from sari_jax.errors import InputError
from sari_jax.models.config import Adapter
from sari_jax.models.layers import REMAT
from sari_jax.models.lora import LEAVES
from sari_jax.models.quantized import DTYPES as QUANTIZED
from sari_jax.models.sizes import SIZES
from sari_jax.rl.kl import ESTIMATORS, IN_REWARD
from sari_jax.rl.objectives import OBJECTIVES, Objective
from sari_jax.rl.rewards.registry import make_scorer, parse_weights

DTYPES = ("float32", "bfloat16")
# By key: what a setting is at least.
LEAST: dict[str, float] = {
    "steps": 1,
    "batch_size": 1,
    "micro_batches": 1,
    "seed": 0,
    "samples_every": 1,
    "max_skipped": 1,
    "model.adapter.rank": 0,
    "data.limit": 0,
    "data.stages": 1,
    "data.refresh": 2,
    "data.window": 1,
    "data.workers": 0,
    "optimizer.warmup_steps": 0,
    "grpo.max_tokens": 1,
    "grpo.top_k": 0,
    "grpo.updates_per_rollout": 1,
    "grpo.importance_cap": 0,
    "held_out.every": 0,
    "held_out.limit": 0,
    "held_out.max_tokens": 1,
    "checkpoint.every": 1,
    "checkpoint.keep": 1,
    "mesh.decode_tensor": 0,
}
# By key: a range, and how it is told. NaN is in none.
LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "optimizer.learning_rate": (lambda x: 0 <= x < math.inf, "finite and at least 0"),
    "optimizer.weight_decay": (lambda x: 0 <= x < math.inf, "finite and at least 0"),
    "optimizer.b1": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "optimizer.b2": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
    "optimizer.clip_norm": (lambda x: 0 < x < math.inf, "finite and above 0; 1e9 is off"),
    "data.keep_features_gb": (lambda x: 0 <= x < math.inf, "finite and at least 0"),
    "data.max_bad_fraction": (lambda x: 0 <= x <= 1, "at least 0 and at most 1"),
    "grpo.top_p": (lambda x: 0 < x <= 1, "above 0 and at most 1, which is off"),
    "grpo.clip_low": (lambda x: x == -1 or x >= 0, "at least 0, or -1 for the objective's own"),
    "grpo.clip_high": (lambda x: x == -1 or x >= 0, "at least 0, or -1 for the objective's own"),
    "grpo.kl_coefficient": (
        lambda x: x == -1 or 0 <= x < math.inf,
        "finite and at least 0, or -1 for the objective's own",
    ),
    "grpo.max_generation_batches": (
        lambda x: x == -1 or x >= 1,
        "at least 1, or -1 for the objective's own",
    ),
}


@dataclasses.dataclass(frozen=True)
class Model:
    path: str = ""  # a Hugging Face directory; also the frozen reference of GRPO
    dtype: str = "float32"  # of activations
    param_dtype: str = "float32"  # of parameters and optimizer state
    # Of parameters that do not learn; "": as param_dtype. int8: the decoder's projections, and the rest in `dtype`.
    frozen_dtype: str = ""
    remat: str = "none"  # none | products | layer: what the backward pass computes again
    attention: str = "xla"  # xla | splash (TPU) | cudnn (GPU)
    reference_dtype: str = ""  # of GRPO's reference; "": as param_dtype
    reference_memory: str = "device"  # device | host: the reference waits in the host's memory
    size: str = ""  # a known size, for `sari compile` where there is no model directory
    # Path patterns of what learns as a whole; "*" trains the tower too. (): with an adapter nothing beside it, and
    # without one projector and decoder.
    trainable: tuple[str, ...] = ()
    adapter: Adapter = Adapter()

    @property
    def learns(self) -> tuple[str, ...]:
        """Path patterns of all that is trained: the adapter, where there is one, and `trainable` beside it."""
        if self.adapter.rank:
            return (LEAVES, *self.trainable)
        return self.trainable or ("projector/*", "decoder/*")

    @property
    def quantized(self) -> str:
        return self.frozen_dtype if self.frozen_dtype in QUANTIZED else ""

    @property
    def network(self) -> dict[str, Any]:
        """What a run makes of the network that its directory describes."""
        return {
            "dtype": self.dtype,
            "remat": self.remat,
            "attention": self.attention,
            "adapter": self.added,
            "quantized": self.quantized,
        }

    @property
    def added(self) -> Adapter | None:
        """What is added to the network: the adapter, whose dropout the supervised step alone knows of."""
        return dataclasses.replace(self.adapter, dropout=0.0) if self.adapter.rank else None


@dataclasses.dataclass(frozen=True)
class Data:
    train: str = ""  # a JSONL of records
    style: str = "structured"
    order: str = "random"  # or easy_to_hard, hard_to_easy, staged, as_written, adaptive (GRPO)
    stages: int = 3  # of order staged; ours
    refresh: int = 32  # batches that order adaptive draws at once; ours
    mix: tuple[str, ...] = ()  # "SOURCE=WEIGHT": shares by patterns of the records' source
    window: int = 1  # batches within which clips of like length are brought together
    workers: int = 0  # processes that read sound; 0: two threads
    limit: int = 0  # use the first N records of the file only; 0: all
    drop_unsolved: bool = True  # GRPO: leave out pass_rate 0 where it is known
    drop_solved: bool = False  # GRPO: leave out pass_rate 1
    max_bad_fraction: float = 0.0  # of unreadable lines before the run stops
    keep_features_gb: float = 0.0  # host memory for the frozen tower's output between epochs
    shapes: Shapes = Shapes()

    @property
    def curriculum(self) -> Curriculum:
        return Curriculum(self.order, self.stages, self.window, self.mix, self.refresh)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    name: str = "adamw"  # adamw | muon
    learning_rate: float = 1e-6  # ours, after R1-AQA and Ke-Omni-R
    warmup_steps: int = 0
    schedule: str = "constant"  # constant | cosine
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.95
    clip_norm: float = 1.0
    moments_dtype: str = "float32"  # float32 | bfloat16: how the moments are kept


@dataclasses.dataclass(frozen=True)
class Grpo:
    num_completions: int = 8  # G; ours
    max_tokens: int = 512  # ours: 512 with thinking, 256 without
    temperature: float = 1.0  # ours
    top_k: int = 0
    top_p: float = 1.0
    objective: str = "grpo"  # grpo | dr_grpo | dapo | gspo | rloo: rows of rl/objectives.py
    # These may be set by themselves; -1, "" or (): as the objective has them.
    clip_low: float = -1.0
    clip_high: float = -1.0
    kl: str = ""  # k1 (in the reward) | k2 | k3 (in the loss)
    kl_coefficient: float = -1.0  # 0: no reference is kept, and none is run
    max_generation_batches: int = -1  # batches that a step may draw until all groups have spread
    rewards: tuple[str, ...] = ()  # "NAME=WEIGHT"
    reward_file: str = ""  # a Python file with a function for each name that is not built in
    reward_functions: tuple[str, ...] = ()  # names of rewards that sari.train is given as functions
    updates_per_rollout: int = 1  # on the same completions; steps count rollouts
    importance_cap: float = 0.0  # of the weight p_trainer / p_sampler of a token; 0: no weight
    # Decode the next batch while this one is scored: its policy is one step old.
    overlap: bool = False

    @property
    def resolved_objective(self) -> Objective:
        """The objective, with what is set here in the place of its own values."""
        own = OBJECTIVES[self.objective]
        numbers = ("clip_low", "clip_high", "kl_coefficient", "max_generation_batches")
        return dataclasses.replace(
            own,
            kl=self.kl or own.kl,
            rewards=self.rewards or own.rewards,
            **{name: getattr(self, name) for name in numbers if getattr(self, name) >= 0},
        )

    @property
    def uses_reference(self) -> bool:
        """Whether there is a reference."""
        return self.resolved_objective.kl_coefficient > 0

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the trainer computes the old log-probabilities in a pass of their own, before the first update.

        Where that update is the only one, and by the policy that sampled, they are what it computes in any case.
        """
        in_reward = self.uses_reference and self.resolved_objective.kl in IN_REWARD
        stale = self.overlap and self.importance_cap > 0
        return self.updates_per_rollout > 1 or in_reward or stale


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Questions that are not trained on, answered greedily on the way."""

    data: str = ""  # a JSONL of records
    every: int = 0  # steps between, and before the first and after the last step; 0: never
    limit: int = 200  # the first N of them; 0: all; ours
    max_tokens: int = 512  # ours


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    every: int = 100
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class Mesh:
    data: int = 1
    fsdp: int = -1  # -1: what the other axes leave
    tensor: int = 1
    # Of fsdp x tensor, devices that share a layer while decoding; 0: tensor. At 1 each holds the whole policy.
    decode_tensor: int = 0


@dataclasses.dataclass(frozen=True)
class Run:
    """All of a run. Two runs with equal settings on one topology give equal bits."""

    stage: str = "sft"  # sft | grpo
    steps: int = 100
    batch_size: int = 16  # prompts per step over all processes
    micro_batches: int = 1  # parts of the batch whose gradients are added up; of SFT's, by length
    seed: int = 0
    samples_every: int = 25  # steps between sample completions in the log
    max_skipped: int = 10  # ours; updates in a row that were not finite before the run stops
    model: Model = Model()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    grpo: Grpo = Grpo()
    held_out: HeldOut = HeldOut()
    checkpoint: Checkpoint = Checkpoint()
    mesh: Mesh = Mesh()

    def __post_init__(self):
        self._check_names()
        self._check_numbers()
        self._check_adapter()
        if self.batch_size % self.micro_batches:
            raise InputError(
                f"config: micro_batches = {self.micro_batches} does not divide batch_size {self.batch_size}"
            )
        if self.held_out.every and not self.held_out.data:
            raise InputError(
                f"config: held_out.every = {self.held_out.every}, and held_out.data names no file; give a JSONL of"
                " records"
            )
        if self.stage == "sft" and self.data.order == ADAPTIVE:
            raise InputError(
                f"config: data.order = {ADAPTIVE!r} follows the rewards of GRPO; choose {', '.join(ORDERS)} for SFT"
            )
        if self.stage == "grpo":
            self._check_grpo()

    def _check_names(self) -> None:
        one_of("stage", self.stage, ("sft", "grpo"))
        one_of("data.style", self.data.style, STYLES)
        one_of("data.order", self.data.order, (*ORDERS, ADAPTIVE))
        one_of("optimizer.name", self.optimizer.name, ("adamw", "muon"))
        one_of("optimizer.schedule", self.optimizer.schedule, ("constant", "cosine"))
        one_of("optimizer.moments_dtype", self.optimizer.moments_dtype, DTYPES)
        one_of("model.dtype", self.model.dtype, DTYPES)
        one_of("model.param_dtype", self.model.param_dtype, DTYPES)
        one_of("model.reference_dtype", self.model.reference_dtype, ("", *DTYPES))
        one_of("model.frozen_dtype", self.model.frozen_dtype, ("", *DTYPES, *QUANTIZED))
        one_of("model.remat", self.model.remat, REMAT)
        one_of("model.reference_memory", self.model.reference_memory, ("device", "host"))
        one_of("model.size", self.model.size, ("", *SIZES))
        one_of("grpo.objective", self.grpo.objective, OBJECTIVES)
        one_of("grpo.kl", self.grpo.kl, ("", *ESTIMATORS))
        if not self.grpo.reward_file:  # else they are known once it is read
            given = self.grpo.reward_functions
            weights = {name: w for name, w in self.reward_weights.items() if name not in given}
            make_scorer(weights)

    def _check_numbers(self) -> None:
        for key, least in LEAST.items():
            value = functools.reduce(getattr, key.split("."), self)
            if not value >= least:  # nor is what is no number
                raise InputError(f"config: {key} = {value} must be at least {least}")
        for key, (holds, limit) in LIMITS.items():
            value = functools.reduce(getattr, key.split("."), self)
            if not holds(value):
                raise InputError(f"config: {key} = {value} must be {limit}")

    def _check_grpo(self) -> None:
        settings = self.grpo
        if settings.num_completions < 2:
            raise InputError(
                f"config: grpo.num_completions = {settings.num_completions}: a group needs at least 2"
            )
        if settings.overlap and settings.resolved_objective.max_generation_batches > 1:
            raise InputError(
                "config: grpo.overlap decodes the next batch before it is known how many this step draws; set"
                " grpo.max_generation_batches=1, or grpo.overlap=False"
            )
        if not 0 < settings.temperature < math.inf:
            raise InputError(
                f"config: grpo.temperature = {settings.temperature} must be finite and above 0: at 0 a group has no"
                " spread"
            )

    def _check_adapter(self) -> None:
        adapter = self.model.adapter
        if not 0 <= adapter.dropout < 1:
            raise InputError(
                f"config: model.adapter.dropout = {adapter.dropout} must be at least 0 and below 1"
            )
        if adapter.rank and not (adapter.targets and adapter.alpha > 0):
            raise InputError(
                "config: an adapter needs model.adapter.alpha above 0 and model.adapter.targets; without one set"
                " model.adapter.rank=0"
            )
        if self.model.quantized and not adapter.rank:
            raise InputError(
                f"config: model.frozen_dtype = {self.model.quantized} freezes the decoder's projections; give them"
                " adapters: model.adapter.rank=32, for instance"
            )
        # GRPO's gradient is that of the policy that sampled. One that drops out other numbers is another policy, whose
        # ratio to the sampling one is no longer 1: no clipping or KL term would mean what it says.
        if self.stage == "grpo" and adapter.dropout:
            raise InputError(
                f"config: model.adapter.dropout = {adapter.dropout} is for SFT: GRPO learns from what its policy"
                " sampled without dropout; set it to 0"
            )

    @property
    def updates(self) -> int:
        """Of the parameters, over all steps."""
        return self.steps * self.updates_per_step

    @property
    def updates_per_step(self) -> int:
        return self.grpo.updates_per_rollout if self.stage == "grpo" else 1

    @property
    def has_reference(self) -> bool:
        return self.stage == "grpo" and self.grpo.uses_reference

    @property
    def reward_weights(self) -> dict[str, float]:
        return parse_weights(self.grpo.resolved_objective.rewards)


def defaults() -> ConfigDict:
    """Every setting with its default, for a config file to start from."""
    return ConfigDict(_plain(Run()))


def freeze(config: ConfigDict | dict[str, Any], kind: type = Run) -> Any:
    """A config file's result -> `Run`, or another frozen dataclass.

    Raises:
        InputError: an unknown key (the nearest known one is named), a wrong type, a value out of range.
    """
    return _build(kind, config.to_dict() if isinstance(config, ConfigDict) else config, "")


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(sorted(filter(None, known)))}"


def one_of(key: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise InputError(f"config: {key} = {value!r} is unknown; {nearest(value, known)}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    return value


def _build(kind: type, values: dict, prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in fields:
            raise InputError(f"config: unknown key {prefix}{key}; {nearest(key, fields)}")
    built = {}
    for key, value in values.items():
        hint = hints[key]
        built[key] = (
            _build(hint, value, f"{prefix}{key}.")
            if dataclasses.is_dataclass(hint)
            else _typed(hint, value, f"{prefix}{key}")
        )
    return kind(**built)


def _typed(hint: Any, value: Any, key: str) -> Any:
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(typing.get_args(hint)[0], item, key) for item in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise InputError(f"config: {key} = {value!r} must be {wanted}, not {type(value).__name__}")
