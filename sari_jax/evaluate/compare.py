"""A comparison of two results on the same questions: is one better, and on which questions do they differ?"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from sari_jax.errors import InputError

JUDGED, SCORES = "judged.json", "scores.json"


def compare_results(one: str | Path, other: str | Path) -> dict[str, Any]:
    """Compares two folders that `sari eval` wrote; see `compare`.

    Raises:
        InputError: a folder is not one, or they are not of the same questions of one benchmark and version.
    """
    names = [_benchmark(Path(folder)) for folder in (one, other)]
    if names[0] != names[1]:
        raise InputError(
            f"{one} is of {names[0]}, {other} of {names[1]}; compare two results of one benchmark"
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
    """Returns, for each question's id, whether its answer was right, as `sari eval` wrote it beside its scores.

    An id that comes again gets its count as a suffix.

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
    """Compares the second result with the first.

    Returns:
        `rows`; the `accuracy` of both; their `difference`, and its `interval` by a bootstrap over questions, with both
        answers of a question drawn together; the `p_value` of McNemar's exact test; `gained`, questions that only the
        second answers right; `lost`, questions that only the first does.

    Raises:
        InputError: they are not over the same questions.

    References:
        McNemar 1947. If the two are equally good, a question that only one of them answers right is as likely to be
        the first's as the second's: a binomial test.
    """
    if one.keys() != other.keys() or not one:
        odd = sorted(one.keys() ^ other.keys())
        raise InputError(
            f"the two are not of the same questions: {len(odd)} are in one alone"
            + (f", {odd[0]!r} the first" if odd else "; both are empty")
        )
    names = list(one)
    first, second = (np.array([run[name] for name in names], int) for run in (one, other))
    change = second - first
    gained = [name for name, step in zip(names, change, strict=True) if step > 0]
    lost = [name for name, step in zip(names, change, strict=True) if step < 0]
    # A bootstrap sample is determined by how many gained, lost and unchanged questions it holds.
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


def table(result: dict[str, Any], names: tuple[str, str], shown: int = 10) -> str:
    """Returns a comparison as text, with at most `shown` questions gained and lost."""
    low, high = result["interval"]
    lines = [
        f"{name}: {accuracy:.1%} of {result['rows']}"
        for name, accuracy in zip(names, result["accuracy"], strict=True)
    ]
    lines.append(
        f"difference {result['difference']:+.1%}, 95 % from {low:+.1%} to {high:+.1%};"
        f" McNemar p = {result['p_value']:.3g}"
    )
    for what in ("gained", "lost"):
        some = result[what][:shown]
        more = f" and {len(result[what]) - shown} more" if len(result[what]) > shown else ""
        lines.append(f"{what} {len(result[what])}: {', '.join(map(ascii, some))}{more}")
    return "\n".join(lines)
