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
from sari_jax.corpus.captions import Caption, write_captions
from sari_jax.corpus.synthesize.templates import Prompts
from sari_jax.data.jsonl import plain, write_items
from sari_jax.data.ledger import Ledger
from sari_jax.data.processor import Example, Shapes
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

    A clip for which there comes no caption stays without one, and stands in the ledger as dropped. Beside `out` the
    ledger is written: OUT.dropped.jsonl and OUT.report.json. After each batch its captions are kept in a file beside
    `out`, so that the same call after a kill goes on from there.

    Args:
        model: which one it is, so that captions of another one are not taken up.

    Raises:
        InputError: `out` is there already or cannot be written, or a prompt is no prompt.
    """
    unwritten(out)
    texts = {task: prompts.render("caption", task=task) for task in {c.task for c in captions}}
    settings = {"model": model, "prompts": texts, "sampling": [temperature, max_tokens, seed]}
    progress = Progress(out.with_name(f".{out.name}.progress"), settings)
    sampler = engine.sampler(1, max_tokens, temperature)
    written = [dataclasses.replace(c, caption=(c.caption or "").strip() or None) for c in captions]
    left = []
    for i, caption in enumerate(written):
        done = caption.caption or progress.known.get(_name(caption))
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
                    progress.add(_name(written[i]), text)
                    ledger.keep()
            progress.flush()
            bar.update(len(batch))
    write_items(out.with_suffix(".dropped.jsonl"), ledger.dropped)
    write_items(out.with_suffix(".report.json"), [ledger.report() | {"model": model}])
    write_captions(out, written)  # last: where it is, all is
    progress.remove()
    return written


def unwritten(out: Path) -> None:
    """For those who have to load a model first, too.

    Raises:
        InputError: the file is there already.
    """
    if out.exists():
        raise InputError(f"{out}: exists; name another --out")


def whole_sentences(answered: Answered) -> str | None:
    """The completion on one line; of one that met its limit, what comes before the sentence that was cut."""
    text = " ".join(answered.texts[0].encode("utf-8", "replace").decode().split())
    if not answered.done[0]:
        ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", text)]
        text = text[: ends[-1]] if ends else ""
    return text or None


def _example(engine: Engine, caption: Caption, prompt: str, number: int) -> Example:
    clips, processor = caption.audio, engine.processor
    # No more is decoded than the model can hear.
    waveforms = [load_clip(c.path, c.start, c.end, longest=processor.seconds) for c in clips]
    text = processor.prompt_text(prompt, len(clips))
    example = processor.encode(text, waveforms, [clip.path for clip in clips])
    return dataclasses.replace(example, index=number)


def _name(caption: Caption) -> str:
    """What tells a clip from others in `Progress`: another file may use the same id for another sound."""
    return json.dumps([caption.id, caption.task, plain(caption.audio)])


class Progress:
    """Captions of a run that is not over: a line with its settings, then one per caption.

    Args:
        settings: a file with others is begun anew.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path, settings: dict):
        self.path, self.known = path, _known(path, settings)
        lines = [settings, *({"clip": name, "caption": text} for name, text in self.known.items())]
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
