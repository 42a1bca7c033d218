"""GRPO and its relatives as rows of one table; what a part is called stands in the module that holds it."""

import dataclasses

OFF = float("inf")  # no clipping


@dataclasses.dataclass(frozen=True)
class Objective:
    """What makes an objective.

    Attributes:
        advantages: of `rl.advantages`.
        aggregation: of `rl.aggregation`.
        ratio: of `rl.ratios`.
        clip_low, clip_high: the ratio is clipped to 1 - clip_low ... 1 + clip_high.
        kl: of `rl.kl`, which says where it is placed.
        kl_coefficient: at 0 there is no reference.
        max_generation_batches: batches that a step may draw until all groups have spread: see `rl.groups`.
        spread: the reward that has to differ within a group for that.
        rewards: of `rl.rewards`, with weights: SARI's two, and what the objective adds to them.
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


# Values are the papers' or their authors' code's. Ours are GRPO's clipping, which DeepSeekMath and R1-AQA do not give,
# RLOO's coefficient, and the weights of rewards. Where there is no KL, the estimator is for a coefficient set by hand.
OBJECTIVES: dict[str, Objective] = {
    # Shao et al. 2024, "DeepSeekMath".
    "grpo": Objective("group", "sequence_mean", "token", 0.2, 0.2, "k3", 0.04),
    # Liu et al. 2025, "Understanding R1-Zero-Like Training".
    "dr_grpo": Objective("centred", "constant_length", "token", 0.2, 0.2, "k3", 0.0),
    # Yu et al. 2025, "DAPO".
    "dapo": Objective(
        *("group", "token_mean", "token", 0.2, 0.28, "k3", 0.0),
        max_generation_batches=10,
        spread="accuracy",  # some of a group are right, and not all
        rewards=("accuracy=1", "format=1", "overlong=1"),
    ),
    # Zheng et al. 2025, "Group Sequence Policy Optimization".
    "gspo": Objective("group", "sequence_mean", "sequence", 3e-4, 4e-4, "k3", 0.0),
    # Ahmadian et al. 2024, "Back to Basics".
    "rloo": Objective("leave_one_out", "sequence_sum", "token", OFF, OFF, "k1", 0.03),
}
