"""A small real model and a small real corpus, from packages alone: enough to try everything on."""

from pathlib import Path
from typing import Any

from sari_jax.assemble import assemble
from sari_jax.data.records import Record, read_records
from sari_jax.errors import InputError

CAPTIONS = 200  # that a projector starts from


def assemble_model(
    name: str, out: Path | str, *, seed: int = 0, captions: Path | str | None = None
) -> Path:
    """Assembles a small checkpoint with Whisper-tiny's encoder as a Hugging Face directory.

    Args:
        name: nano, a new small decoder, or smol, SmolLM2-135M.
        out: the new directory.
        seed: of the weights that are new.
        captions: a JSONL of questions with structured chains; the projector starts from the first 200 captions.

    Returns:
        The directory.

    Raises:
        InputError: an unknown name, captions that cannot be used, or an `out` that cannot be written.
    """
    captioned = _captioned(captions) if captions else []
    assemble(name, Path(out), seed=seed, captioned=captioned)
    return Path(out)


def starter_corpus(
    out: Path | str,
    *,
    train: int = 4200,
    validation: int = 420,
    test: int = 600,
    seed: int = 0,
) -> dict[str, Any]:
    """Builds the starter corpus: questions about short clips of sampled instruments, sounds and speech.

    Args:
        out: the new folder, with a JSONL of records for each split.
        train, validation, test: how many questions of each split.
        seed: the same seed gives the same bits.

    Returns:
        What was built, counted.

    Raises:
        InputError: `out` cannot be written, or a package cannot be fetched.
    """
    from sari_jax.corpus.sources import starter

    return starter.build(Path(out), seed=seed, train=train, validation=validation, test=test)


def _captioned(path: Path | str) -> list[Record]:
    """Returns the records whose captions a projector starts from.

    Raises:
        InputError: a record has no caption, or all captions are the same.
    """
    captioned = read_records(path)[:CAPTIONS]
    captions = [(record.chain_structured or {}).get("caption", "").strip() for record in captioned]
    if "" in captions:
        bare = captioned[captions.index("")]
        raise InputError(
            f"{path}: record {bare.id} has no caption in a chain_structured; give records that have one"
        )
    if captions and len(set(captions)) < 2:
        raise InputError(
            f"{path}: all of {len(captioned)} captions are the same; give at least two that differ"
        )
    return captioned
