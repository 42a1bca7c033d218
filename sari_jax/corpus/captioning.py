"""Captions for clips that have none, written by a model of this package."""

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from sari_jax.audio.clips import load_clip
from sari_jax.corpus.captions import Caption, write_captions
from sari_jax.corpus.synthesize.templates import Prompts
from sari_jax.data.jsonl import plain, write_items
from sari_jax.data.ledger import Ledger
from sari_jax.data.processor import Example, Shapes
from sari_jax.errors import InputError
from sari_jax.generate.engine import Answered, Engine

UNREADABLE = "sound cannot be taken"
NO_SENTENCE = "no whole sentence"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioning:
    """The settings for writing captions.

    Attributes:
        model: names the model; captions by another one are not reused.
        rows: clips in a batch.
    """

    model: str
    prompts: Prompts
    temperature: float = 0.0
    max_tokens: int = 128
    rows: int = 8
    shapes: Shapes = Shapes()
    seed: int = 0


def write_missing(
    engine: Engine, captions: Sequence[Caption], out: Path, ledger: Ledger, settings: Captioning
) -> list[Caption]:
    """Writes the missing captions with a model, and then all captions to `out`; returns them.

    If the model gives no caption for a clip, the clip stays without one and the ledger has it as dropped. The ledger is
    written beside `out`: OUT.dropped.jsonl and OUT.report.json. Captions are saved after each batch in a file beside
    `out`; after a kill, the same call continues from there.

    Raises:
        InputError: `out` exists or cannot be written, or a prompt is not a template.
    """
    refuse_existing(out)
    tasks = {caption.task for caption in captions}
    texts = {task: settings.prompts.render("caption", task=task) for task in tasks}
    sampling = [settings.temperature, settings.max_tokens, settings.seed]
    identity = {"model": settings.model, "prompts": texts, "sampling": sampling}
    progress = Progress(out.with_name(f".{out.name}.progress"), identity)
    written = [dataclasses.replace(c, caption=(c.caption or "").strip() or None) for c in captions]
    missing = _fill_in_known(written, progress, ledger)
    with progress, tqdm(total=len(captions), desc="caption", file=sys.stderr, disable=None) as bar:
        bar.update(len(captions) - len(missing))
        for start in range(0, len(missing), settings.rows):
            batch = missing[start : start + settings.rows]
            for i, text in _answers(engine, written, batch, texts, ledger, settings):
                written[i] = dataclasses.replace(written[i], caption=text)
                progress.add(_key(written[i]), text)
                ledger.keep()
            progress.flush()
            bar.update(len(batch))
    write_items(out.with_suffix(".dropped.jsonl"), ledger.dropped)
    write_items(out.with_suffix(".report.json"), [ledger.report() | {"model": settings.model}])
    write_captions(out, written)  # last: once it exists, all is written
    progress.remove()
    return written


def _fill_in_known(written: list[Caption], progress: "Progress", ledger: Ledger) -> list[int]:
    """Fills in the captions of an earlier call, in place; returns the indices of those that are missing."""
    missing = []
    for i, caption in enumerate(written):
        text = caption.caption or progress.known.get(_key(caption))
        if text:
            written[i] = dataclasses.replace(caption, caption=text)
            ledger.keep()
        else:
            missing.append(i)
    return missing


def _answers(
    engine: Engine,
    captions: Sequence[Caption],
    batch: Sequence[int],
    prompts: Mapping[str, str],
    ledger: Ledger,
    settings: Captioning,
) -> Iterator[tuple[int, str]]:
    """Asks the model about a batch; yields each index with its caption. The ledger gets the others."""
    examples = {}
    for i in batch:
        try:
            examples[i] = _example(engine, captions[i], prompts[captions[i].task], i)
        except InputError as error:
            ledger.drop(captions[i].id, UNREADABLE, str(error))
    sampler = engine.sampler(1, settings.max_tokens, settings.temperature)
    answers = engine.answer(
        list(examples.values()),
        sampler,
        settings.shapes,
        rows=settings.rows,
        seed=settings.seed,
    )
    for i, answered in zip(examples, answers, strict=True):
        text = whole_sentences(answered)
        if text is None:
            ledger.drop(captions[i].id, NO_SENTENCE, answered.texts[0])
        else:
            yield i, text


def refuse_existing(out: Path) -> None:
    """Checks that `out` does not exist. A caller that first loads a model calls it before that.

    Raises:
        InputError: the file exists.
    """
    if out.exists():
        raise InputError(f"{out}: exists; name another --out")


def whole_sentences(answered: Answered) -> str | None:
    """Returns the completion on one line, without a last sentence that the token limit cut; None where none is left."""
    text = " ".join(answered.texts[0].encode("utf-8", "replace").decode().split())
    if not answered.done[0]:
        ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", text)]
        text = text[: ends[-1]] if ends else ""
    return text or None


def _example(engine: Engine, caption: Caption, prompt: str, number: int) -> Example:
    clips, processor = caption.audio, engine.processor
    # No more is decoded than the model takes.
    waveforms = [load_clip(c.path, c.start, c.end, longest=processor.seconds) for c in clips]
    text = processor.prompt_text(prompt, len(clips))
    example = processor.encode(text, waveforms, [clip.path for clip in clips])
    return dataclasses.replace(example, index=number)


def _key(caption: Caption) -> str:
    """Returns the clip's key in `Progress`. The id is not enough: another file may use it for other audio."""
    return json.dumps([caption.id, caption.task, plain(caption.audio)])


class Progress:
    """A file with the captions of an unfinished run: a line with its settings, then one line for each caption.

    Args:
        settings: if the file's are others, it is started again.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path, settings: dict):
        self.path = path
        self.known = _known(path, settings)
        lines = [settings, *({"clip": name, "caption": text} for name, text in self.known.items())]
        aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            # The file is written again, as a kill may have left half a line at its end.
            aside.write_text("".join(json.dumps(line) + "\n" for line in lines))
            aside.replace(path)
            self._file = path.open("a")
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot be written ({error.strerror}); name another --out"
            ) from error

    def add(self, name: str, caption: str) -> None:
        self._file.write(json.dumps({"clip": name, "caption": caption}) + "\n")

    def flush(self) -> None:
        self._file.flush()

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _known(path: Path, settings: dict) -> dict[str, str]:
    try:
        first, *lines = path.read_text().splitlines()
        if json.loads(first) != settings:
            return {}
    except (OSError, ValueError):
        return {}
    known = {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            known[entry["clip"]] = entry["caption"]
    return known
