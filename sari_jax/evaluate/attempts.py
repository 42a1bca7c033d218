"""A model's attempts at many questions, written as they come.

Every finished batch is a file of its own in the folder of attempts. The same command goes on with the batches that are
missing, on the same number of hosts or another, and each question gets the attempts that it would have got. A batch
holds questions with clips of similar length, as clips are padded to the batch's longest. Results are in the order of
the questions.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from sari_jax.atomic import os_errors_as_input_error, write_text
from sari_jax.data.jsonl import json_object
from sari_jax.data.lengths import by_length
from sari_jax.data.processor import Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.digests import corpus_digest, model_digest
from sari_jax.errors import InputError
from sari_jax.generate.engine import Answered, Engine
from sari_jax.parallel import hosts
from sari_jax.rl.rewards.answer import accuracy_reward

SETTINGS = "settings.json"
FIELDS = {"text", "done", "right"}  # of an attempt


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttemptSettings:
    """The way each question is asked.

    Attributes:
        count: the number of attempts at each question.
        rows: the number of questions in a batch.

    Raises:
        InputError: a number is below its limit.
    """

    style: Style
    count: int = 16
    temperature: float = 1.0
    max_tokens: int = 512
    rows: int = 8
    seed: int = 0
    shapes: Shapes = Shapes()

    def __post_init__(self):
        for name, value in (
            ("attempts", self.count),
            ("max_tokens", self.max_tokens),
            ("rows", self.rows),
        ):
            if value < 1:
                raise InputError(f"{name} = {value}: must be at least 1")

    def settings(self) -> dict[str, Any]:
        """Returns the settings in the form in which they are written beside the attempts."""
        return json.loads(json.dumps(dataclasses.asdict(self) | {"style": self.style.name}))

    def settings_with(self, model: str, data: str, dtype: str) -> dict[str, Any]:
        """Returns these settings with digests of the model and the questions: all that an attempt depends on."""
        read = {"model": model_digest(model), "data": corpus_digest(Path(data)), "dtype": dtype}
        return read | self.settings()


def attempted(
    engine: Engine,
    records: Sequence[Record],
    attempts: AttemptSettings,
    folder: Path,
    settings: dict[str, Any],
    what: str,
) -> list[dict[str, Any]]:
    """Returns a row for each record: its `id`, and its `attempts` or an `error`.

    An attempt has its `text`, whether it is `done` before the limit, and whether it is `right`. All hosts call this.
    They take batches in turn, each on its own devices alone.

    Args:
        folder: the folder for the attempts; batches that it already holds are not repeated.
        settings: all that an attempt depends on; a folder with other settings is refused.
        what: the name of the progress bar.

    Raises:
        InputError: the folder cannot be written, or holds attempts with other settings.
    """
    plan = by_length(records, attempts.rows)
    grouping = {"grouping": hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]}
    hosts.assert_same_on_all_hosts(grouping)
    _claim_on_all_hosts(folder, settings | grouping)
    mine = [
        batch
        for batch in range(jax.process_index(), len(plan), jax.process_count())
        if not _file(folder, batch).exists()
    ]
    sampler = engine.sampler(attempts.count, attempts.max_tokens, attempts.temperature)
    answered = engine.answer_batches(
        records,
        attempts.style,
        sampler,
        attempts.shapes,
        rows=attempts.rows,
        seed=attempts.seed,
        batches=[plan[batch] for batch in mine],
    )
    done = len(plan) - len(mine) if jax.process_count() == 1 else 0
    bar = tqdm(
        zip(mine, answered, strict=True),
        total=done + len(mine),
        initial=done,
        desc=what,
        unit="batch",
        file=sys.stderr,
        disable=None if hosts.is_primary() else True,
    )
    with hosts.raise_on_all_hosts():
        for batch, results in bar:
            rows = [
                _row(records[index], result, attempts.style)
                for index, result in zip(plan[batch], results, strict=True)
            ]
            _write(_file(folder, batch), rows)
    with hosts.raise_on_all_hosts():
        return _read(folder, records, plan)


def _claim_on_all_hosts(folder: Path, settings: dict[str, Any]) -> None:
    """Claims the folder on the first host, and checks that the others see it."""
    with hosts.raise_on_all_hosts():
        if hosts.is_primary():
            _claim(folder, settings)
    with hosts.raise_on_all_hosts():
        if not (folder / SETTINGS).exists():
            raise InputError(
                f"{folder}: this host does not see what the first host wrote there; name an --out that all hosts share"
            )


def _row(record: Record, answered: Answered | InputError, style: Style) -> dict[str, Any]:
    if isinstance(answered, InputError):
        return {"id": record.id, "error": str(answered)}
    attempts = [
        {"text": text, "done": done, "right": bool(accuracy_reward(text, record, style))}
        for text, done in zip(answered.texts, answered.done, strict=True)
    ]
    return {"id": record.id, "attempts": attempts}


def _file(folder: Path, batch: int) -> Path:
    return folder / f"batch-{batch:06d}.jsonl"


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with os_errors_as_input_error(path):
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _read(
    folder: Path, records: Sequence[Record], plan: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for batch, indices in enumerate(plan):
        path = _file(folder, batch)
        if not path.exists():
            raise InputError(
                f"{path}: this host does not see it; name an --out in a folder that all hosts share"
            )
        try:
            lines = path.read_text(encoding="ascii").splitlines()  # `_write` escapes the rest
            rows = {row["id"]: row for row in map(json.loads, lines)}
            found |= {index: rows[records[index].id] for index in indices}
            for row in rows.values():
                for attempt in row.get("attempts", ()):
                    (
                        attempt["text"],
                        attempt["done"],
                        attempt["right"],
                    )  # another version names them otherwise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not the attempts of this batch; delete it and run this again"
            ) from error
    return [found[index] for index in range(len(records))]


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    with os_errors_as_input_error(folder):
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")
            return
        before = json_object(path.read_text())
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        raise InputError(
            f"{folder}: holds attempts with another {', '.join(changed)}; name another --out, or delete the folder"
        )
