"""GRPO and its relatives as rows of one table; each part is explained in the module that holds it."""

import dataclasses

# No ratio is clipped.
OFF = float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The parts that an objective is made of.

    >>> OBJECTIVES["dapo"].clip_low, OBJECTIVES["dapo"].clip_high
    (0.2, 0.28)
    >>> dataclasses.replace(OBJECTIVES["grpo"], kl="k2").kl_coefficient
    0.04

    Attributes:
        advantages: a name of `rl.advantages`.
        aggregation: a name of `rl.aggregation`.
        ratio: a name of `rl.ratios`.
        clip_low, clip_high: the ratio is clipped to 1 - clip_low ... 1 + clip_high.
        kl: a name of `rl.kl`, which also says whether it is placed in the reward or in the loss.
        kl_coefficient: weight of the KL; 0 for no reference.
        max_generation_batches: batches that a step may draw until all groups have spread; see `rl.groups`.
        spread: the reward whose values have to differ within a group.
        rewards: "NAME=WEIGHT", names of `rl.rewards`: SARI's two, and what the objective adds to them.
    """

    advantages: str
    aggregation: str
    ratio: str
    clip_low: float
    clip_high: float
    kl: str
    kl_coefficient: float
    max_generation_batches: int = 1
    spread: str = "total"
    rewards: tuple[str, ...] = ("accuracy=1", "format=1")


# The values are those of the papers or of their authors' code. Ours are GRPO's clipping, which DeepSeekMath and R1-AQA
# do not give, RLOO's coefficient, and the weights of rewards. An objective without KL names the estimator that is used
# if a run sets a coefficient.
OBJECTIVES: dict[str, Objective] = {
    # Shao et al. 2024, "DeepSeekMath".
    "grpo": Objective(
        advantages="group",
        aggregation="sequence_mean",
        ratio="token",
        clip_low=0.2,
        clip_high=0.2,
        kl="k3",
        kl_coefficient=0.04,
    ),
    # Liu et al. 2025, "Understanding R1-Zero-Like Training".
    "dr_grpo": Objective(
        advantages="centred",
        aggregation="constant_length",
        ratio="token",
        clip_low=0.2,
        clip_high=0.2,
        kl="k3",
        kl_coefficient=0.0,
    ),
    # Yu et al. 2025, "DAPO".
    "dapo": Objective(
        advantages="group",
        aggregation="token_mean",
        ratio="token",
        clip_low=0.2,
        clip_high=0.28,
        kl="k3",
        kl_coefficient=0.0,
        max_generation_batches=10,
        # Some completions of a group are right, and not all of them.
        spread="accuracy",
        rewards=("accuracy=1", "format=1", "overlong=1"),
    ),
    # Zheng et al. 2025, "Group Sequence Policy Optimization".
    "gspo": Objective(
        advantages="group",
        aggregation="sequence_mean",
        ratio="sequence",
        clip_low=3e-4,
        clip_high=4e-4,
        kl="k3",
        kl_coefficient=0.0,
    ),
    # Ahmadian et al. 2024, "Back to Basics".
    "rloo": Objective(
        advantages="leave_one_out",
        aggregation="sequence_sum",
        ratio="token",
        clip_low=OFF,
        clip_high=OFF,
        kl="k1",
        kl_coefficient=0.03,
    ),
}
