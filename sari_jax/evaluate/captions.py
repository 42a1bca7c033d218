"""Captions of clips that have none, by a model of ours."""

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from sari_jax.audio.clips import load_clip
from sari_jax.data.captions import Caption, write_captions
from sari_jax.data.ledger import Ledger
from sari_jax.data.processor import Example, Shapes
from sari_jax.data.synthesize.templates import Prompts
from sari_jax.errors import InputError
from sari_jax.generate.engine import Answered, Engine

UNREADABLE = "sound cannot be taken"
NO_SENTENCE = "no whole sentence"


def captioned(
    engine: Engine,
    captions: Sequence[Caption],
    prompts: Prompts,
    out: Path,
    ledger: Ledger,
    *,
    model: str,
    temperature: float = 0.0,
    max_tokens: int = 128,
    rows: int = 8,
    shapes: Shapes = Shapes(),
    seed: int = 0,
) -> list[Caption]:
    """Fills in what is missing and writes all to `out`, aside and then renamed.

    A clip for which there comes no caption stays without one, and stands in the ledger as dropped. After each batch
    its captions are kept in a file beside `out`, so that the same call after a kill goes on from there.

    Args:
        model: which one it is, so that captions of another one are not taken up.

    Raises:
        InputError: `out` cannot be written, or a prompt is no prompt.
    """
    texts = {task: prompts.render("caption", task=task) for task in {c.task for c in captions}}
    settings = {"model": model, "prompts": texts, "sampling": [temperature, max_tokens, seed]}
    progress = Progress(out.with_name(f".{out.name}.progress"), settings)
    sampler = engine.sampler(1, max_tokens, temperature)
    written = [dataclasses.replace(c, caption=(c.caption or "").strip() or None) for c in captions]
    left = []
    for i, caption in enumerate(written):
        done = caption.caption or progress.known.get(caption.id)
        if done:
            written[i] = dataclasses.replace(caption, caption=done)
            ledger.keep()
        else:
            left.append(i)
    total = len(captions)
    with progress, tqdm(total=total, desc="caption", file=sys.stderr, disable=None) as bar:
        bar.update(total - len(left))
        for start in range(0, len(left), rows):
            batch = left[start : start + rows]
            examples = {}
            for i in batch:
                try:
                    examples[i] = _example(engine, written[i], texts[written[i].task], i)
                except InputError as error:
                    ledger.drop(written[i].id, UNREADABLE, str(error))
            answers = engine.answer(list(examples.values()), sampler, shapes, rows=rows, seed=seed)
            for i, answered in zip(examples, answers, strict=True):
                text = whole_sentences(answered)
                if text is None:
                    ledger.drop(written[i].id, NO_SENTENCE, answered.texts[0])
                else:
                    written[i] = dataclasses.replace(written[i], caption=text)
                    progress.add(written[i].id, text)
                    ledger.keep()
            progress.flush()
            bar.update(len(batch))
    write_captions(out, written)
    progress.remove()
    return written


def whole_sentences(answered: Answered) -> str | None:
    """The completion on one line; of one that met its limit, what comes before the sentence that was cut."""
    text = " ".join(answered.texts[0].encode("utf-8", "replace").decode().split())
    if not answered.ended[0]:
        ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", text)]
        text = text[: ends[-1]] if ends else ""
    return text or None


def _example(engine: Engine, caption: Caption, prompt: str, number: int) -> Example:
    clips = caption.audio
    waveforms = [load_clip(clip.path, clip.start, clip.end) for clip in clips]
    text = engine.processor.prompt_text(prompt, len(clips))
    example = engine.processor.encode(text, waveforms, [clip.path for clip in clips])
    return dataclasses.replace(example, number=number)


class Progress:
    """Captions of a run that is not over: a line with its settings, then one per caption.

    Args:
        settings: a file with others is begun anew.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path, settings: dict):
        self.path, self.known = path, _known(path, settings)
        lines = [settings, *({"id": name, "caption": text} for name, text in self.known.items())]
        aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            # Written anew, as its last line may be half a line.
            aside.write_text("".join(json.dumps(line) + "\n" for line in lines))
            aside.replace(path)
            self._file = path.open("a")
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot be written ({error.strerror}); name another --out"
            ) from error

    def add(self, name: str, caption: str) -> None:
        self._file.write(json.dumps({"id": name, "caption": caption}) + "\n")

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
            known[entry["id"]] = entry["caption"]
    return known
