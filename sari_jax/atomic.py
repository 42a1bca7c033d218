"""Files and directories that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sari_jax.errors import InputError


@contextmanager
def new_directory(out: Path | str) -> Iterator[Path]:
    """Yields a temporary directory, which is renamed to `out` at the end; after an error nothing is left behind.

    Raises:
        InputError: `out` is not empty, or its parent cannot be written.
    """
    out = vacant(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a killed process with the same id
    with os_errors_as_input_error(out):
        aside.mkdir(parents=True)
    try:
        yield aside
        with os_errors_as_input_error(out):
            if out.exists():
                out.rmdir()
            aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def vacant(out: Path | str) -> Path:
    """Returns the absolute path of a directory that may be made. Callers check it before long work.

    Raises:
        InputError: it is not empty.
    """
    out = Path(out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not empty; name a new directory with --out")
    return out


def write_text(path: Path, text: str) -> None:
    """Writes a text file, complete or not at all.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def os_errors_as_input_error(out: Path) -> Iterator[None]:
    """Raises InputError in place of an OSError inside."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror}); name another --out"
        ) from error
