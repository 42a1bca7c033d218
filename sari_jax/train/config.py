"""A run's settings. Config files give an ml_collections `ConfigDict`; `freeze` makes a frozen `Run` of it.

Each field states its default, its limit and its meaning. docs/settings.md is written from the fields:

    python -m sari_jax.train.config > docs/settings.md

Values marked "ours" are this project's: the SARI paper publishes no hyperparameters.
"""

import dataclasses
import math
import sys
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
from sari_jax.settings import build, check, plain, setting, tables

DTYPES = ("float32", "bfloat16")
# The end of the limit of a setting that comes from the objective unless it is set.
BY_OBJECTIVE = ", or -1 for the objective's own"
AXIS = "at least 1; one axis may be -1: what the others leave"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The model: where it is, and how it computes and is kept."""

    path: str = setting(
        "", doc="A Hugging Face directory. It is also the frozen reference of GRPO."
    )
    dtype: str = setting("float32", choices=DTYPES, doc="Dtype of activations.")
    param_dtype: str = setting(
        "float32", choices=DTYPES, doc="Dtype of parameters and optimizer state."
    )
    frozen_dtype: str = setting(
        "",
        choices=("", *DTYPES, *QUANTIZED),
        doc='Dtype of parameters that are not trained; "": as `param_dtype`. int8 applies to the decoder\'s'
        " projections only; other frozen parameters then use `dtype`.",
    )
    remat: str = setting(
        "none", choices=REMAT, doc="What the backward pass computes again instead of keeping it."
    )
    # `models.kernels` checks this one: it knows the device.
    attention: str = setting(
        "xla",
        hint="`xla`, `splash` (TPU), `cudnn` (GPU)",
        doc="Attention kernel. Decoding one token always uses xla.",
    )
    reference_dtype: str = setting(
        "", choices=("", *DTYPES), doc='Dtype of GRPO\'s reference; "": as `param_dtype`.'
    )
    reference_memory: str = setting(
        "device", choices=("device", "host"), doc="Memory that keeps the reference between uses."
    )
    size: str = setting(
        "", choices=("", *SIZES), doc="A known size, for `sari compile` without a model directory."
    )
    trainable: tuple[str, ...] = setting(
        (),
        doc="Path patterns of parameters that are trained in full. Empty: projector and decoder, or nothing beside an"
        ' adapter. `("*",)` trains the audio encoder too.',
    )
    adapter: Adapter = Adapter()

    @property
    def trainable_patterns(self) -> tuple[str, ...]:
        """Path patterns of all that is trained: the adapter, if there is one, and `trainable` beside it."""
        if self.adapter.rank:
            return (LEAVES, *self.trainable)
        return self.trainable or ("projector/*", "decoder/*")

    @property
    def quantized(self) -> str:
        """The dtype that the decoder's frozen projections are quantized to, or ""."""
        return self.frozen_dtype if self.frozen_dtype in QUANTIZED else ""

    @property
    def network(self) -> dict[str, Any]:
        """The fields of `AudioLMConfig` that a run sets and its model directory does not."""
        return {
            "dtype": self.dtype,
            "remat": self.remat,
            "attention": self.attention,
            "adapter": self.network_adapter,
            "quantized": self.quantized,
        }

    @property
    def network_adapter(self) -> Adapter | None:
        """The adapter as the network has it: without dropout, which the supervised step alone applies."""
        return dataclasses.replace(self.adapter, dropout=0.0) if self.adapter.rank else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The questions that are trained on, and their order."""

    train: str = setting("", doc="A JSONL file of records.")
    style: str = setting("structured", choices=STYLES, doc="What an answer must look like.")
    order: str = setting(
        "random",
        choices=(*ORDERS, ADAPTIVE),
        doc="Order of questions. adaptive is for GRPO: it follows what the policy answers.",
    )
    stages: int = setting(3, at_least=1, doc="Stages of order staged; ours.")
    refresh: int = setting(
        32,
        at_least=2,
        doc="Batches that order adaptive draws before it looks at pass rates again; ours.",
    )
    mix: tuple[str, ...] = setting(
        (),
        doc="Shares of sources, `SOURCE=WEIGHT` each; SOURCE is a pattern of the records' source.",
    )
    window: int = setting(
        1, at_least=1, doc="Batches within which clips of similar length are brought together."
    )
    workers: int = setting(0, at_least=0, doc="Processes that read audio; 0: two threads.")
    limit: int = setting(0, at_least=0, doc="Use only the first N records of the file; 0: all.")
    drop_unsolved: bool = setting(
        True, doc="GRPO: leave out questions whose pass rate is known to be 0."
    )
    drop_solved: bool = setting(False, doc="GRPO: leave out questions of pass rate 1.")
    max_bad_fraction: float = setting(
        0.0,
        at_least=0,
        at_most=1,
        doc="Share of unusable lines and records above which the run stops.",
    )
    keep_features_gb: float = setting(
        0.0,
        finite=True,
        at_least=0,
        doc="Host memory for the frozen audio encoder's output between epochs, in GB.",
    )
    shapes: Shapes = Shapes()

    @property
    def curriculum(self) -> Curriculum:
        """The settings that decide in which order questions come."""
        return Curriculum(
            order=self.order,
            stages=self.stages,
            window=self.window,
            mix=self.mix,
            refresh=self.refresh,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The optimizer and its learning rate."""

    name: str = setting("adamw", choices=("adamw", "muon"), doc="The optimizer.")
    learning_rate: float = setting(
        1e-6,
        finite=True,
        at_least=0,
        doc="The learning rate after warm-up; ours, after R1-AQA and Ke-Omni-R.",
    )
    warmup_steps: int = setting(
        0, at_least=0, doc="Updates in which the learning rate rises linearly from zero."
    )
    schedule: str = setting(
        "constant",
        choices=("constant", "cosine"),
        doc="The learning rate after warm-up; cosine falls to a tenth.",
    )
    weight_decay: float = setting(0.0, finite=True, at_least=0, doc="Decoupled weight decay.")
    b1: float = setting(0.9, at_least=0, below=1, doc="Decay of the first moment.")
    b2: float = setting(0.95, at_least=0, below=1, doc="Decay of the second moment.")
    clip_norm: float = setting(
        1.0,
        finite=True,
        above=0,
        hint="; 1e9 turns clipping off",
        doc="Global norm to which gradients are clipped.",
    )
    moments_dtype: str = setting(
        "float32", choices=DTYPES, doc="Dtype in which the moments are kept."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grpo:
    """Sampling, objective and rewards of GRPO."""

    num_completions: int = setting(
        8, hint="at least 2 for GRPO", doc="Completions per prompt, the group size G; ours."
    )
    max_tokens: int = setting(
        512, at_least=1, doc="Longest completion; ours: 512 with thinking, 256 without."
    )
    temperature: float = setting(
        1.0, hint="finite and above 0 for GRPO", doc="Temperature of sampling; ours."
    )
    top_k: int = setting(0, at_least=0, doc="Sample from the K likeliest tokens; 0: from all.")
    top_p: float = setting(
        1.0,
        above=0,
        at_most=1,
        hint="; 1 keeps all tokens",
        doc="Sample from the likeliest tokens that hold this probability together.",
    )
    objective: str = setting("grpo", choices=OBJECTIVES, doc="A row of sari_jax/rl/objectives.py.")
    clip_low: float = setting(
        -1.0,
        at_least=0,
        unset=-1,
        hint=BY_OBJECTIVE,
        doc="The ratio is clipped from below at 1 - `clip_low`.",
    )
    clip_high: float = setting(
        -1.0,
        at_least=0,
        unset=-1,
        hint=BY_OBJECTIVE,
        doc="The ratio is clipped from above at 1 + `clip_high`.",
    )
    kl: str = setting(
        "",
        choices=("", *ESTIMATORS),
        doc='KL estimator: k1 is in the reward, k2 and k3 are in the loss; "": the objective\'s own.',
    )
    kl_coefficient: float = setting(
        -1.0,
        finite=True,
        at_least=0,
        unset=-1,
        hint=BY_OBJECTIVE,
        doc="Weight of the KL term; at 0 no reference is kept or run.",
    )
    max_generation_batches: int = setting(
        -1,
        at_least=1,
        unset=-1,
        hint=BY_OBJECTIVE,
        doc="Batches that a step may draw until all groups have spread.",
    )
    rewards: tuple[str, ...] = setting(
        (), doc="Rewards and their weights, `NAME=WEIGHT` each; empty: the objective's own."
    )
    reward_file: str = setting(
        "", doc="A Python file with a function for each reward that is not built in."
    )
    reward_functions: tuple[str, ...] = setting(
        (), doc="Names of the rewards that `sari_jax.train` is given as functions."
    )
    updates_per_rollout: int = setting(
        1, at_least=1, doc="Updates on the same completions. `steps` counts rollouts."
    )
    importance_cap: float = setting(
        0.0,
        at_least=0,
        doc="Cap of a token's importance weight p_trainer / p_sampler; 0: no such weight.",
    )
    overlap: bool = setting(
        False, doc="Decode the next batch while this one is scored: its policy is one step old."
    )

    @property
    def resolved_objective(self) -> Objective:
        """The objective, with the values that are set here in place of its own."""
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

        A single update by the policy that sampled needs no such pass: it computes the same values itself.
        """
        in_reward = self.uses_reference and self.resolved_objective.kl in IN_REWARD
        stale = self.overlap and self.importance_cap > 0
        return self.updates_per_rollout > 1 or in_reward or stale


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Questions that are not trained on and are answered greedily during training."""

    data: str = setting("", doc="A JSONL file of records.")
    every: int = setting(
        0,
        at_least=0,
        doc="Steps between two evaluations, besides one before the first step and one after the last; 0: never.",
    )
    limit: int = setting(200, at_least=0, doc="The first N questions; 0: all; ours.")
    max_tokens: int = setting(512, at_least=1, doc="Longest answer; ours.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The interval and the number of checkpoints."""

    every: int = setting(100, at_least=1, doc="Steps between two checkpoints.")
    keep: int = setting(2, at_least=1, doc="Checkpoints that are kept, the newest ones.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
    """The device mesh: data x fsdp x tensor is the number of devices."""

    # `parallel.mesh` checks the axes: it knows the devices.
    data: int = setting(1, hint=AXIS, doc="Devices along the data axis.")
    fsdp: int = setting(-1, hint=AXIS, doc="Devices along the fsdp axis.")
    tensor: int = setting(1, hint=AXIS, doc="Devices along the tensor axis.")
    decode_tensor: int = setting(
        0,
        at_least=0,
        doc="How many of the fsdp x tensor devices share a layer while decoding; 0: as `tensor`; 1: each holds the"
        " whole policy.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """All settings of a run. Two runs with equal settings on one topology give equal bits."""

    stage: str = setting("sft", choices=("sft", "grpo"), doc="What is trained: SFT or GRPO.")
    steps: int = setting(100, at_least=1, doc="Training steps.")
    batch_size: int = setting(16, at_least=1, doc="Prompts per step over all processes.")
    micro_batches: int = setting(
        1,
        at_least=1,
        doc="Parts of the batch whose gradients are added up. SFT sorts a batch into parts by length.",
    )
    seed: int = setting(0, at_least=0, doc="Seed of all randomness.")
    samples_every: int = setting(
        25,
        at_least=1,
        doc="N: at step 1 and every N steps, samples.jsonl gets questions with all of their completions.",
    )
    max_skipped: int = setting(
        10, at_least=1, doc="Non-finite updates in a row after which the run stops; ours."
    )
    model: Model = Model()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    grpo: Grpo = Grpo()
    held_out: HeldOut = HeldOut()
    checkpoint: Checkpoint = Checkpoint()
    mesh: Mesh = Mesh()

    def __post_init__(self):
        check(self)
        # A reward file's names are known once it is read.
        if not self.grpo.reward_file:
            given = self.grpo.reward_functions
            weights = self.reward_weights
            make_scorer({name: weights[name] for name in weights if name not in given})
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
        # GRPO's ratio compares the policy in training with the policy that sampled. With dropout the two differ before
        # any update, so the ratio does not start at 1, and clipping and KL would measure dropout's noise.
        if self.stage == "grpo" and adapter.dropout:
            raise InputError(
                f"config: model.adapter.dropout = {adapter.dropout} is for SFT: GRPO learns from what its policy"
                " sampled without dropout; set it to 0"
            )

    @property
    def updates(self) -> int:
        """The number of parameter updates over all steps."""
        return self.steps * self.updates_per_step

    @property
    def updates_per_step(self) -> int:
        """The number of parameter updates that a step makes."""
        return self.grpo.updates_per_rollout if self.stage == "grpo" else 1

    @property
    def has_reference(self) -> bool:
        """Whether the run keeps a frozen reference."""
        return self.stage == "grpo" and self.grpo.uses_reference

    @property
    def reward_weights(self) -> dict[str, float]:
        """The weight of each reward by name."""
        return parse_weights(self.grpo.resolved_objective.rewards)


def defaults() -> ConfigDict:
    """Returns every setting with its default, for a config file to start from."""
    return ConfigDict(plain(Run()))


def freeze(config: ConfigDict | dict[str, Any], kind: type = Run) -> Any:
    """Returns a config file's result as `Run`, or as another frozen dataclass.

    Raises:
        InputError: an unknown key (the nearest known one is named), a wrong type, a value out of range.
    """
    return build(kind, config.to_dict() if isinstance(config, ConfigDict) else config)


def settings_page() -> str:
    """Returns docs/settings.md."""
    return f"""# Settings

A config file sets them (`config.optimizer.learning_rate = 1e-5`), and so does the command line
(`--config.optimizer.learning_rate=1e-5`). A value outside its limit is an error that names the limit.
"Ours" marks values of this project: the SARI paper publishes no hyperparameters.

This page is written from the fields of `sari_jax/train/config.py` by
`python -m sari_jax.train.config > docs/settings.md`.

{tables(Run)}"""


if __name__ == "__main__":
    sys.stdout.write(settings_page())
