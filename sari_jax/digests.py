"""Digests of the files that a run reads, by which changed content is noticed."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from sari_jax.errors import InputError


def files_digest(paths: Iterable[Path]) -> str:
    """Returns a digest of the files' names and content; their folders do not matter.

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()[:16]


def corpus_digest(path: Path) -> str:
    """Returns a digest of a file of records, and of the names and sizes of the audio shards beside it.

    It is empty if there is no such file: the reader of the records raises the error.
    """
    if not path.is_file():
        return ""
    shards = [f"{p.name} {p.stat().st_size}" for p in sorted(path.parent.glob("*.arrayrecord"))]
    digest = files_digest([path])
    return (
        hashlib.sha256("\n".join([digest, *shards]).encode()).hexdigest()[:16] if shards else digest
    )


# The files of a model directory that decide how a question becomes tokens, and where an answer ends.
_OF_PROMPTS = (
    *("tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("chat_template*", "additional_chat_templates/*", "processor_config.json"),
    "generation_config.json",
)


def prompts_digest(folder: str | Path) -> str:
    """Returns a digest of a model directory's tokenizer, chat templates and generation config."""
    files = {path for name in _OF_PROMPTS for path in Path(folder).glob(name) if path.is_file()}
    return files_digest(sorted(files))


def model_digest(folder: str | Path) -> str:
    """Returns a digest of a model directory's config and weights."""
    files = sorted(Path(folder).glob("*"))
    read = [f for f in files if f.name == "config.json" or f.suffix == ".safetensors"]
    return files_digest(
        tqdm(read, "digest", leave=False, file=sys.stderr, disable=None, delay=2)  # many gigabytes
    )
