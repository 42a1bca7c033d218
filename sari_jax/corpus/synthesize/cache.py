"""A cache of replies by request, so that no reply is paid for twice.

An entry's name is the sha256 of the request: model, messages and sampling settings. The endpoint's address is not part
of it, so that a model may move to another server. The endpoint's key is never part of it.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sari_jax.errors import InputError

Request = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Reply:
    """A reply of the endpoint.

    Attributes:
        text: the text of the first and only choice.
        finish: the reason why the text ended: "stop", "length", ...
        prompt_tokens, completion_tokens: the endpoint's token counts.
    """

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


class Cache:
    """A folder with one file per reply.

    Raises:
        InputError: the folder cannot be created.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def get(self, request: Request) -> Reply | None:
        """Returns the reply to a request; None where there is none or its file is damaged."""
        entry = _read(self._place(request))
        return None if entry is None else entry[1]

    def put(self, request: Request, reply: Reply) -> None:
        """Writes a reply, complete or not at all.

        Raises:
            InputError: it cannot be written.
        """
        self._write(self._place(request), request, reply)

    def put_unusable(self, request: Request, spent: Reply) -> None:
        """Writes the cost of an answer that is no reply. `replies` counts it; `get` does not return it.

        Raises:
            InputError: it cannot be written.
        """
        place = self._place(request)
        self._write(place.with_name(f"{place.stem}.{time.time_ns()}.json"), request, spent)

    def replies(self, model: str) -> Iterator[Reply]:
        """Yields all replies of this model, in no order."""
        for path in self.folder.glob("??/*.json"):
            if (entry := _read(path)) is not None and entry[0].get("model") == model:
                yield entry[1]

    def _write(self, place: Path, request: Request, reply: Reply) -> None:
        aside = place.with_name(f".{place.name}.{os.getpid()}.{threading.get_ident()}.partial")
        text = json.dumps({"request": request, "reply": dataclasses.asdict(reply)})
        try:
            place.parent.mkdir(exist_ok=True)
            aside.write_text(text + "\n", encoding="utf-8")
            aside.replace(place)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _place(self, request: Request) -> Path:
        text = json.dumps(request, sort_keys=True, ensure_ascii=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.folder}: cannot be written ({error.strerror}); name another --cache"
        )


def _read(path: Path) -> tuple[Request, Reply] | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        request = dict(entry["request"])
        reply = Reply(**entry["reply"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    whole = all(type(getattr(reply, f.name)) is f.type for f in dataclasses.fields(reply))
    return (request, reply) if whole else None
