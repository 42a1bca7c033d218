"""What a run reads, told apart by content."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm


def files_digest(paths: Iterable[Path]) -> str:
    """Of whole files and their names, wherever they lie."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()[:16]


def corpus_digest(path: Path) -> str:
    """Of a file of records, and of which shards of sound lie beside it, by name and size."""
    shards = [f"{p.name} {p.stat().st_size}" for p in sorted(path.parent.glob("*.arrayrecord"))]
    digest = files_digest([path])
    return (
        hashlib.sha256("\n".join([digest, *shards]).encode()).hexdigest()[:16] if shards else digest
    )


def model_digest(folder: str | Path) -> str:
    """Of a model directory's config and weights."""
    files = sorted(Path(folder).glob("*"))
    read = [f for f in files if f.name == "config.json" or f.suffix == ".safetensors"]
    return files_digest(
        tqdm(read, "digest", leave=False, file=sys.stderr, disable=None, delay=2)  # many gigabytes
    )
