"""Rewards by name, and a completion's score: their sum by the config's weights."""

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.errors import InputError
from sari_jax.rl.rewards.answer import accuracy_reward, format_reward
from sari_jax.rl.rewards.chain import consistency_reward, sections_reward
from sari_jax.rl.rewards.completion import Completion
from sari_jax.rl.rewards.file import load_rewards
from sari_jax.rl.rewards.functions import Functions
from sari_jax.rl.rewards.length import length_reward, overlong_reward
from sari_jax.user_file import reason

Reward = Callable[[Completion, Record, Style], float]
Scorer = Callable[[Completion, Record, Style], dict[str, float]]
REWARDS: dict[str, Reward] = {
    "accuracy": accuracy_reward,
    "format": format_reward,
    "length": length_reward,
    "overlong": overlong_reward,
    "sections": sections_reward,
    "consistency": consistency_reward,
}
# What a step's other numbers, and a completion's, are called in the files of a run.
RESERVED = frozenset(
    "advantage audio_seconds clip_fraction completion_tokens done done_fraction entropy examples generation_batches"
    " gradient_norm idle_fraction importance kl learning_rate loss mfu model_tflop parameter_norm ratio records_skipped"
    " reward rows sampler_gap skipped skipped_in_a_row skipped_total step text tokens total update_norm updates_behind"
    " zero_spread zero_spread_left".split()
)


def parse_weights(shares: Iterable[str]) -> dict[str, float]:
    """("accuracy=2", "format=1") -> {"accuracy": 2.0, "format": 1.0}

    Raises:
        InputError: a share that does not read NAME=WEIGHT, a name that comes twice or that something else has.
    """
    weights: dict[str, float] = {}
    for share in shares:
        name, _, text = share.partition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not name.isidentifier() or not math.isfinite(weight) or name in weights:
            raise InputError(
                f"config: grpo.rewards: {share!r} does not read NAME=WEIGHT, as 'accuracy=2', once for each name"
            )
        if name in RESERVED or name.startswith("seconds"):
            raise InputError(
                f"config: grpo.rewards: {name!r} has the name of a number that a run writes; name it otherwise"
            )
        weights[name] = weight
    return weights


def make_scorer(
    weights: Mapping[str, float],
    reward_file: str = "",
    functions: Functions = MappingProxyType({}),
) -> Scorer:
    """A function that gives each reward with a weight, unweighted, by name; `accuracy` in any case; and `total`.

    Args:
        reward_file: the user's, with a function for each name that is not known here; "" for none.
        functions: the user's functions by name, which `check_functions` has accepted.

    Raises:
        InputError: a weight for an unknown reward, a file that cannot be used or that defines a known one anew. The
            scorer: a user's function that fails, or gives something other than a finite number.
    """
    unknown = [name for name in weights if name not in REWARDS and name not in functions]
    if unknown and not reward_file:
        raise InputError(
            f"config: grpo.rewards: {unknown[0]!r} is unknown; choose {', '.join(REWARDS)},"
            " or name a grpo.reward_file with a function of that name"
        )
    own = load_rewards(reward_file, unknown, taken=REWARDS) if reward_file else {}
    own = {**own, **functions}
    rewards = {name: REWARDS[name] for name in weights if name in REWARDS} | own
    rewards.setdefault("accuracy", accuracy_reward)  # pass rates are read off it

    def scorer(completion: Completion, record: Record, style: Style) -> dict[str, float]:
        values = {}
        for name, reward in rewards.items():
            try:
                values[name] = float(reward(completion, record, style))
            except Exception as error:
                if name not in own:
                    raise
                raise InputError(
                    f"reward {name!r} failed on a completion of record {record.id}: {reason(error)}"
                ) from error
            if not math.isfinite(values[name]):
                raise InputError(
                    f"reward {name!r} of a completion of record {record.id} is {values[name]}, not a finite number"
                )
        total = sum(weights.get(name, 0.0) * value for name, value in values.items())
        return values | {"total": float(total)}

    return scorer
