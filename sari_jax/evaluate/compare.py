"""Two runs over the same questions: is one better, and on which questions do they differ?"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from sari_jax.errors import InputError

JUDGED, SCORES = "judged.json", "scores.json"


def compare_results(one: str | Path, other: str | Path) -> dict[str, Any]:
    """`compare` of two folders that `sari eval` made.

    Raises:
        InputError: a folder is no such, or they are not over the same questions of one benchmark and version.
    """
    names = [_benchmark(Path(folder)) for folder in (one, other)]
    if names[0] != names[1]:
        raise InputError(
            f"{one} is of {names[0]}, {other} of {names[1]}; compare two of one benchmark"
        )
    return compare(read_judged(one), read_judged(other))


def _benchmark(folder: Path) -> str:
    path = folder / SCORES
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        return " ".join([scores["benchmark"], *filter(None, [scores.get("version")])])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unlike(path, error) from error


def _unlike(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: not what `sari eval` writes into --out ({error}); name two such folders"
    )


def read_judged(folder: str | Path) -> dict[str, bool]:
    """What `sari eval` wrote beside its scores: question -> whether its answer was right.

    A repeated id is told apart by how often it came before.

    Raises:
        InputError: no such file, or another form.
    """
    path = Path(folder) / JUDGED
    found: dict[str, bool] = {}
    try:
        for row in json.loads(path.read_text(encoding="utf-8")):
            name, again = str(row["id"]), 0
            while (key := name if not again else f"{name} #{again + 1}") in found:
                again += 1
            found[key] = bool(row["right"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unlike(path, error) from error
    return found


def compare(
    one: dict[str, bool],
    other: dict[str, bool],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The second run against the first.

    Returns:
        `rows`; `accuracy` of both; `difference`, and its `interval` by a bootstrap that draws questions, both answers
        at once; `p_value` of McNemar's exact test; `gained`, questions that only the second answers right, and
        `lost`, those that only the first does.

    Raises:
        InputError: they are not over the same questions.

    References:
        McNemar 1947. Given that a question is answered right by one of the two alone, either is as likely if they are
        equally good: a binomial test.
    """
    if one.keys() != other.keys() or not one:
        odd = sorted(one.keys() ^ other.keys())
        raise InputError(
            f"the two are not over the same questions: {len(odd)} are in one alone"
            + (f", {odd[0]!r} the first" if odd else "; both are empty")
        )
    names = list(one)
    first, second = (np.array([run[name] for name in names], int) for run in (one, other))
    change = second - first
    gained = [name for name, step in zip(names, change, strict=True) if step > 0]
    lost = [name for name, step in zip(names, change, strict=True) if step < 0]
    # Drawing questions with replacement: how many of the gained, lost and unchanged ones come.
    shares = np.array([len(gained), len(lost), len(names) - len(gained) - len(lost)]) / len(names)
    drawn = np.random.default_rng(seed).multinomial(len(names), shares, resamples)
    tail = (1 - level) / 2
    differing = len(gained) + len(lost)
    return {
        "rows": len(names),
        "accuracy": [float(first.mean()), float(second.mean())],
        "difference": float(change.mean()),
        "interval": np.quantile(
            (drawn[:, 0] - drawn[:, 1]) / len(names), [tail, 1 - tail]
        ).tolist(),
        "p_value": float(binomtest(len(gained), differing).pvalue) if differing else 1.0,
        "gained": gained,
        "lost": lost,
    }


def table(told: dict[str, Any], names: tuple[str, str], shown: int = 10) -> str:
    """For people."""
    low, high = told["interval"]
    lines = [
        f"{name}: {accuracy:.1%} of {told['rows']}"
        for name, accuracy in zip(names, told["accuracy"], strict=True)
    ]
    lines.append(
        f"difference {told['difference']:+.1%}, 95 % from {low:+.1%} to {high:+.1%}; McNemar p = {told['p_value']:.3g}"
    )
    for what in ("gained", "lost"):
        some = told[what][:shown]
        more = f" and {len(told[what]) - shown} more" if len(told[what]) > shown else ""
        lines.append(f"{what} {len(told[what])}: {', '.join(map(ascii, some))}{more}")
    return "\n".join(lines)
