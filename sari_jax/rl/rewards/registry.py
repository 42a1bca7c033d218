"""Rewards by name, and the score of a completion: the sum of its rewards by the config's weights."""

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
# Names of other metrics that a run writes, of a step or of a completion.
RESERVED = frozenset(
    "advantage audio_seconds clip_fraction completion_tokens done done_fraction entropy examples generation_batches"
    " gradient_norm idle_fraction importance kl learning_rate loss mfu model_tflop parameter_norm ratio records_skipped"
    " reward rows sampler_gap skipped skipped_in_a_row skipped_total step text tokens total update_norm updates_behind"
    " zero_spread zero_spread_left".split()
)


def parse_weights(shares: Iterable[str]) -> dict[str, float]:
    """Reads the weights of rewards.

    >>> parse_weights(("accuracy=2", "format=1"))
    {'accuracy': 2.0, 'format': 1.0}

    Args:
        shares: "NAME=WEIGHT" each.

    Returns:
        The weight of each reward by name.

    Raises:
        InputError: a share does not read NAME=WEIGHT, or its name comes twice or belongs to another metric of a run.
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
                f"config: grpo.rewards: {share!r} does not read NAME=WEIGHT; write for instance 'accuracy=2', and each"
                " name once"
            )
        if name in RESERVED or name.startswith("seconds"):
            raise InputError(
                f"config: grpo.rewards: {name!r} is the name of another metric of a run; give the reward another name"
            )
        weights[name] = weight
    return weights


def make_scorer(
    weights: Mapping[str, float],
    reward_file: str = "",
    functions: Functions = MappingProxyType({}),
) -> Scorer:
    """Makes a function that computes all rewards of a completion.

        total = sum of weight * reward over the names with a weight

    >>> from sari_jax.data.records import Clip
    >>> from sari_jax.data.styles import STYLES
    >>> record = Record(
    ...     id="r1", audio=(Clip("dog.wav"),), question="Which animal?", choices=("cat", "dog"),
    ...     answer_index=1, task="sound", source="mine", licence="CC0-1.0",
    ... )
    >>> scorer = make_scorer({"accuracy": 2.0, "format": 0.5})
    >>> scorer(Completion("It is a <answer>dog</answer>", 9, 48), record, STYLES["direct"])
    {'accuracy': 1.0, 'format': 0.0, 'total': 2.0}

    Args:
        weights: name -> weight, for rewards in REWARDS, in the reward file or among the functions.
        reward_file: a user's Python file with a function for each name that is unknown otherwise; "" for none.
        functions: the user's functions by name, which `check_functions` has accepted.

    Returns:
        A function (completion, record, style) -> each reward by name, before its weight, and their `total`. `accuracy`
        is among them even if it has no weight.

    Raises:
        InputError: a reward is unknown, the file cannot be used, or it defines a built-in reward. The scorer raises it
            if a user's function fails or returns something other than a finite number.
    """
    unknown = [name for name in weights if name not in REWARDS and name not in functions]
    if unknown and not reward_file:
        raise InputError(
            f"config: grpo.rewards: {unknown[0]!r} is unknown; choose {', '.join(REWARDS)},"
            " or set grpo.reward_file to a file with a function of that name"
        )
    own = load_rewards(reward_file, unknown, taken=(*REWARDS, *functions)) if reward_file else {}
    own = {**own, **functions}
    rewards = {name: REWARDS[name] for name in weights if name in REWARDS} | own
    # Pass rates are computed from it.
    rewards.setdefault("accuracy", accuracy_reward)

    def scorer(completion: Completion, record: Record, style: Style) -> dict[str, float]:
        values = {
            name: _value(name, reward, name in own, completion, record, style)
            for name, reward in rewards.items()
        }
        total = sum(weights.get(name, 0.0) * value for name, value in values.items())
        return values | {"total": float(total)}

    return scorer


def _value(
    name: str, reward: Reward, is_users: bool, completion: Completion, record: Record, style: Style
) -> float:
    """Returns the value of one reward.

    Raises:
        InputError: a user's function fails, or the value is not finite.
    """
    try:
        value = float(reward(completion, record, style))
    except Exception as error:
        if not is_users:
            raise
        raise InputError(
            f"reward {name!r} failed on a completion of record {record.id}: {reason(error)}; mend the function"
        ) from error
    if not math.isfinite(value):
        raise InputError(
            f"reward {name!r} of a completion of record {record.id} is {value}, not a finite number; mend the function"
        )
    return value
