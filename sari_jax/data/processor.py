"""Questions and sound files -> the arrays a step takes.

The chat template, the tokenizer and the end tokens are the model directory's own. Every shape is rounded up to
a bucket, so that a run compiles a known, small number of programs.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sari_jax.audio.clips import load_clip
from sari_jax.data.chat_template import ChatTemplates
from sari_jax.data.records import Record
from sari_jax.data.styles import Style, question_text
from sari_jax.errors import InputError
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.encoder import LOOKAHEAD, frame_counts
from sari_jax.parallel import hosts
from sari_jax.settings import setting

SAMPLE_RATE = 16_000
MIN_SAMPLES = 321  # shorter clips have no pooled frame to stand for them
STRIDE = 640  # samples per pooled frame
# Between the seeds of one example's turns in a batch; all differ below 256 turns, where int32 has come round once.
REPEAT = 1 << 24
END, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The sizes that a batch may have, each ascending; a batch takes the smallest that fits."""

    prompt_tokens: tuple[int, ...] = setting(
        (
            *(96, 128, 160, 192, 256, 384, 512, 640, 768, 832, 896, 1024, 1280, 1536),
            *(2048, 3072, 4096, 8192, 16384, 32768),
        ),
        doc="P: tokens of a prompt, 25 for each second of audio included.",
    )
    answer_tokens: tuple[int, ...] = setting(
        (64, 128, 256, 512), doc="T: tokens of a supervised answer, end token included."
    )
    # With the silence that is asked for behind a clip of 2, 8 or 15 s.
    audio_seconds: tuple[float, ...] = setting(
        (2.04, 3.2, 4.0, 8.04, 11.0, 15.04, 22.0, 30.0, 60.0, 120.0, 300.0),
        doc="Seconds of a batch's longest clip; sizes above the audio encoder's limit are never reached.",
    )
    audios: tuple[int, ...] = setting((1, 2, 4, 8, 16), doc="Clips per prompt.")


@dataclasses.dataclass(frozen=True)
class Example:
    """One question ready to be batched: text after the template, ids, sound, and the answer for SFT."""

    text: str
    tokens: np.ndarray
    waveforms: tuple[np.ndarray, ...]
    record: Record | None = None
    answer: np.ndarray | None = None
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Batch:
    """Arrays for the device and the records for the host.

    Attributes:
        prompts: of B rows; rows past `len(records)` repeat the first one and count nowhere.
        answers: [B, 1, T] supervised targets, or None.
        answer_mask: [B, 1, T], false for padding and for padded rows.
        seeds: [B] each example's number.
        records: the real rows' records.
        pad_id: what stands after a row's tokens.
        repeats: [B] how often a row's example stands before it in the batch of all processes; None for never.
    """

    prompts: Prompts
    seeds: np.ndarray
    records: tuple[Record, ...]
    answers: np.ndarray | None = None
    answer_mask: np.ndarray | None = None
    pad_id: int = 0
    repeats: np.ndarray | None = None

    @property
    def draws(self) -> np.ndarray:
        """[B] seeds for sampling: an example that is asked again in the same batch is answered anew."""
        return self.seeds if self.repeats is None else self.seeds + self.repeats * REPEAT

    def parts(self, count: int, shapes: Shapes) -> list["Batch"]:
        """The rows in `count` equal parts from short to long, each in the smallest shapes that hold its own rows.

        Where several hosts feed a part, in the smallest that hold all of theirs: they have to call this together.

        Raises:
            InputError: the rows do not divide.
        """
        parts = [self]
        if count > 1:
            rows = np.argsort(self.prompts.lengths, kind="stable")
            if len(rows) % count:
                raise InputError(
                    f"config: micro_batches = {count} does not divide {len(rows)} rows"
                )
            parts = [self.only(part, shapes) for part in np.split(rows, count)]
        if not hosts.is_multihost():
            return parts
        sizes = hosts.all_gather(np.array([part.sizes for part in parts], np.int32)).max(axis=0)
        return [part.sized(*map(int, row)) for part, row in zip(parts, sizes, strict=True)]

    def only(self, rows: np.ndarray, shapes: Shapes) -> "Batch":
        """These rows, of which none is padding, in the smallest shapes that hold them."""
        _, audios, size, longest = self.sizes
        whole = self.prompts
        tokens = bucket(int(whole.lengths[rows].max()), shapes, "prompt_tokens")
        samples = clip_size(int(whole.samples[rows].max()), shapes.audio_seconds, size)
        if self.answer_mask is not None:
            longest = bucket(int(self.answer_mask[rows].sum(-1).max()), shapes, "answer_tokens")
        answers, mask = (None if x is None else x[rows] for x in (self.answers, self.answer_mask))
        records = tuple(self.records[row] for row in rows if row < len(self.records))
        taken = Prompts(*(array[rows] for array in vars(whole).values()))
        repeats = None if self.repeats is None else self.repeats[rows]
        part = Batch(taken, self.seeds[rows], records, answers, mask, self.pad_id, repeats)
        return part.sized(tokens, audios, samples, longest)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """How long the axes are that may be padded: prompt tokens, clips, samples of a clip, answer tokens."""
        answer = 0 if self.answers is None else self.answers.shape[-1]
        return self.prompts.tokens.shape[1], *self.prompts.waveforms.shape[1:], answer

    def sized(self, tokens: int, audios: int, samples: int, answer: int) -> "Batch":
        """The same rows with these sizes, which hold them."""
        whole, frames = self.prompts, self.sizes[2] // STRIDE
        index = _fit(whole.audio_index, (tokens,), -1)
        prompts = Prompts(
            _fit(whole.tokens, (tokens,), self.pad_id),
            whole.lengths,
            np.where(index < 0, -1, index // frames * (samples // STRIDE) + index % frames),
            _fit(whole.waveforms, (audios, samples), 0),
            _fit(whole.samples, (audios,), 0),
        )
        answers, mask = self.answers, self.answer_mask
        if answers is not None:
            answers, mask = (
                _fit(x, (answer,), fill) for x, fill in ((answers, self.pad_id), (mask, False))
            )
        return Batch(prompts, self.seeds, self.records, answers, mask, self.pad_id, self.repeats)


def _fit(array: np.ndarray, sizes: tuple[int, ...], fill: int) -> np.ndarray:
    """The last axes cut or padded to `sizes`."""
    kept = array[(..., *(slice(size) for size in sizes))]
    missing = [size - had for size, had in zip(sizes, kept.shape[-len(sizes) :], strict=True)]
    if not any(missing):
        return kept
    widths = [(0, 0)] * (array.ndim - len(sizes)) + [(0, size) for size in missing]
    return np.pad(kept, widths, constant_values=fill)


class Processor:
    """A model directory's tokenizer and chat template.

    Args:
        config: the directory's, for its longest clip and for which token stands for sound.

    Raises:
        InputError: no tokenizer, no chat template, or one that does not go with the other or with the config.
    """

    def __init__(self, model_dir: Path | str, config: AudioLMConfig):
        from transformers import AutoTokenizer
        from transformers.utils import logging

        self.model_dir, self.seconds = Path(model_dir), config.encoder.seconds
        templates = ChatTemplates(self.model_dir)
        told = logging.get_verbosity()
        try:
            # It would warn of Omni's own config.json, on whose voice it has another mind.
            logging.set_verbosity_error()
            self.tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        except Exception as error:  # transformers raises a dozen kinds, all meaning a bad directory
            raise InputError(
                f"{model_dir}: no usable tokenizer ({error})".splitlines()[0]
            ) from error
        finally:
            logging.set_verbosity(told)
        vocabulary = self.tokenizer.get_vocab()
        if END not in vocabulary:
            raise InputError(f"{model_dir}: the tokenizer lacks {END}; is it a Qwen one?")
        self.audio_id = config.audio_token_id
        self.audio = self.tokenizer.convert_ids_to_tokens(self.audio_id)
        if not self.audio:
            raise InputError(
                f"{model_dir}: config.json says that sound stands at token {self.audio_id}, and the tokenizer ends at"
                f" {len(self.tokenizer) - 1}; take config and tokenizer from one model"
            )
        added = self.tokenizer.added_tokens_decoder.values()
        special = [re.escape(token.content) for token in added if token.special]
        self._special = re.compile("|".join(special) or r"(?!)")
        self.template = templates.chosen(self.tokenizer, self.audio, self.audio_id)
        self.end_ids = self._end_ids(vocabulary)
        self.pad_id = vocabulary.get(END_OF_TEXT, self.end_ids[0])

    def _end_ids(self, vocabulary: dict[str, int]) -> tuple[int, ...]:
        """What ends an answer: Qwen's two, and whatever generation_config.json names beside them."""
        path = self.model_dir / "generation_config.json"
        named: Any = None
        if path.is_file():
            try:
                named = json.loads(path.read_text()).get("eos_token_id")
            except (ValueError, AttributeError, RecursionError) as error:
                raise InputError(f"{path}: not a JSON object; fetch the file again") from error
        named = named if isinstance(named, list) else [] if named is None else [named]
        if not all(type(token) is int for token in named):
            raise InputError(f"{path}: eos_token_id {named} is no token id; fetch the file again")
        known = [vocabulary[token] for token in (END, END_OF_TEXT) if token in vocabulary]
        return tuple(dict.fromkeys([*known, *named]))

    def prompt_text(self, user_text: str, audios: int) -> str:
        """The exact text after the chat template, with one placeholder per clip."""
        return self.template.question(user_text, audios)

    def encode(
        self, text: str, waveforms: Sequence[np.ndarray], names: Sequence[str] = ()
    ) -> Example:
        """Tokenizes, and repeats each placeholder as often as its clip has features.

        Raises:
            InputError: placeholders and clips differ in number; a clip is too short or too long.
        """
        tokens = self.tokens(text)
        sounds = tokens == self.audio_id
        if (found := int(sounds.sum())) != len(waveforms):
            raise InputError(
                f"the prompt has {found} {self.audio} placeholders for {len(waveforms)} clips;"
                " take the placeholder out of the question or give as many clips"
            )
        for i, waveform in enumerate(waveforms):
            size, name = len(waveform), names[i] if i < len(names) else f"clip {i + 1}"
            if size > self.seconds * SAMPLE_RATE:
                raise InputError(
                    f"{name}: {size / SAMPLE_RATE:.1f} s exceeds {self.seconds} s; split it, or name a span by start"
                    " and end"
                )
            if size < MIN_SAMPLES:
                raise InputError(
                    f"{name}: {size / SAMPLE_RATE:.3f} s is under 0.021 s; give a longer clip"
                )
        # Repeated as tokens, which is far quicker than as text of hundreds of them.
        counts = np.ones(len(tokens), int)
        counts[sounds] = [frame_counts(len(waveform))[1] for waveform in waveforms]
        return Example(text, np.repeat(tokens, counts), tuple(waveforms))

    def question(
        self,
        record: Record,
        style: Style,
        *,
        number: int = 0,
        answer: bool = False,
        waveforms: Sequence[np.ndarray] | None = None,
    ) -> Example:
        """A record in a style.

        Args:
            answer: whether the supervised target is made too.
            waveforms: of its clips; None reads them from disk.

        Raises:
            InputError: the record cannot be asked about; see `encode` and `Style.render`.
        """
        if waveforms is None:
            longest = self.seconds
            waveforms = [load_clip(c.path, c.start, c.end, longest=longest) for c in record.audio]
        asked = question_text(record.question, record.choices, style)
        self._refuse_special(asked.replace(self.audio, ""), "question")
        text = self.prompt_text(asked, len(waveforms))
        example = self.encode(text, waveforms, [clip.path for clip in record.audio])
        target = None
        if answer:
            rendered = style.render(record)
            self._refuse_special(rendered, "chain")
            target = self.tokens(rendered + END)
        return dataclasses.replace(example, record=record, answer=target, number=number)

    def _refuse_special(self, text: str, called: str) -> None:
        """
        Raises:
            InputError: the text would become a token that opens or ends a turn, or stands for a sound.
        """
        if found := self._special.search(text):
            raise InputError(
                f"the {called} holds {found[0]!r}, a token of the model's own; take it out of the text"
            )

    def tokens(self, text: str) -> np.ndarray:
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def texts(self, tokens: np.ndarray, lengths: np.ndarray) -> list[str]:
        """Ids [N, T] of completions -> text, without the end token; other special tokens stay visible."""
        rows = [
            [int(t) for t in row[:length] if int(t) not in self.end_ids]
            for row, length in zip(np.asarray(tokens), np.asarray(lengths), strict=True)
        ]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=False)

    def collate(
        self, examples: Sequence[Example], shapes: Shapes, rows: int | None = None
    ) -> Batch:
        """Pads examples to a bucket and up to `rows` rows.

        Raises:
            InputError: an example fits no bucket.
        """
        real, rows = len(examples), rows or len(examples)
        p, a, s, t = self.sizes(examples, shapes)
        tokens = np.full((rows, p), self.pad_id, np.int32)
        lengths = np.ones(rows, np.int32)
        audio_index = np.full((rows, p), -1, np.int32)
        waveforms, samples = np.zeros((rows, a, s), np.float32), np.zeros((rows, a), np.int32)
        seeds = np.zeros(rows, np.int32)
        for row in range(rows):
            example = examples[row if row < real else 0]
            size = len(example.tokens)
            tokens[row, :size], lengths[row], seeds[row] = example.tokens, size, example.number
            places = [
                np.arange(frame_counts(len(w))[1]) + i * (s // STRIDE)
                for i, w in enumerate(example.waveforms)
            ]
            where = np.flatnonzero(example.tokens == self.audio_id)
            audio_index[row, where] = np.concatenate([*places, np.zeros(0, int)])
            for i, waveform in enumerate(example.waveforms):
                waveforms[row, i, : len(waveform)], samples[row, i] = waveform, len(waveform)
        prompts = Prompts(tokens, lengths, audio_index, waveforms, samples)
        answers = mask = None
        if t:
            answers, mask = (
                np.full((rows, 1, t), self.pad_id, np.int32),
                np.zeros((rows, 1, t), bool),
            )
            for row, example in enumerate(examples):
                answers[row, 0, : len(example.answer)] = example.answer
                mask[row, 0, : len(example.answer)] = True
        records = tuple(e.record for e in examples if e.record)
        return Batch(prompts, seeds, records, answers, mask, self.pad_id)

    def sizes(self, examples: Sequence[Example], shapes: Shapes) -> tuple[int, int, int, int]:
        """The buckets that hold all examples: prompt tokens, clips, samples of a clip, answer tokens or 0.

        Raises:
            InputError: an example fits no bucket.
        """
        longest = max((len(w) for e in examples for w in e.waveforms), default=0)
        answers = [len(e.answer) for e in examples if e.answer is not None]
        return (
            bucket(max(len(e.tokens) for e in examples), shapes, "prompt_tokens"),
            bucket(max(1, *(len(e.waveforms) for e in examples)), shapes, "audios"),
            clip_size(longest, shapes.audio_seconds, self.seconds * SAMPLE_RATE),
            bucket(max(answers), shapes, "answer_tokens") if answers else 0,
        )


def bucket(value: int, shapes: Shapes, key: str) -> int:
    sizes = getattr(shapes, key)
    for size in sizes:
        if value <= size:
            return int(size)
    what = {"audios": "clips in a prompt"}.get(key, key.replace("_", " "))
    raise InputError(
        f"{value} {what} exceed {sizes[-1]}, the largest of data.shapes.{key}; add a larger one, or give fewer"
    )


def clip_size(longest: int, seconds: tuple[float, ...], limit: int) -> int:
    """The smallest bucket, in samples, that holds the clip and the silence its last frames look at.

    Args:
        longest: samples of the clip; one of `limit` needs no silence.
    """
    for bucket in seconds:
        size = min(round(bucket * SAMPLE_RATE / STRIDE) * STRIDE, limit)
        if size == limit or longest + LOOKAHEAD <= size:
            if longest <= size:
                return size
    raise InputError(
        f"a clip of {longest / SAMPLE_RATE:.1f} s does not fit data.shapes.audio_seconds = {seconds}"
        f" with {1000 * LOOKAHEAD / SAMPLE_RATE:.0f} ms of silence behind it; add a larger size,"
        f" {limit // SAMPLE_RATE} at most"
    )
