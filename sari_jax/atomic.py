"""Directories that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sari_jax.errors import InputError


@contextmanager
def new_directory(out: Path | str) -> Iterator[Path]:
    """A directory filled aside and renamed to `out` once whole; nothing is left behind otherwise.

    Raises:
        InputError: `out` holds something already, or its parent cannot be written.
    """
    out = Path(out).resolve()
    refuse_full(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a killed process that had our number
    with _told(out):
        aside.mkdir(parents=True)
    try:
        yield aside
        with _told(out):
            if out.exists():
                out.rmdir()
            aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_full(out: Path | str) -> None:
    """For whoever has much to do before it is written.

    Raises:
        InputError: `out` holds something already.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not empty; name a new directory with --out")


@contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror}); name another --out"
        ) from error
