"""The processor: questions and audio files become the arrays that a step takes.

The chat template, the tokenizer and the end tokens are the model directory's own. Every shape is rounded up to
a bucket, so that a run compiles a known, small number of programs.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sari_jax.audio.clips import load_clip
from sari_jax.audio.spans import SAMPLE_RATE
from sari_jax.data.chat_template import ChatTemplates
from sari_jax.data.records import Record
from sari_jax.data.styles import Style, question_text
from sari_jax.errors import InputError
from sari_jax.models.audio_lm import Prompts
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.encoder import LOOKAHEAD, STRIDE, frame_counts
from sari_jax.parallel import hosts
from sari_jax.settings import setting

# Samples. A shorter clip has no pooled frame.
MIN_SAMPLES = 321
# The distance between the sampling seeds of an example that is repeated in a batch. All seeds differ for up to 256
# repeats, where int32 has wrapped around once.
REPEAT = 1 << 24
END, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"


@dataclasses.dataclass(frozen=True, kw_only=True)
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
    # Some hold a clip of 2, 8 or 15 s and the silence that is needed after it.
    audio_seconds: tuple[float, ...] = setting(
        (2.04, 3.2, 4.0, 8.04, 11.0, 15.04, 22.0, 30.0, 60.0, 120.0, 300.0),
        doc="Seconds of a batch's longest clip; sizes above the audio encoder's limit are never reached.",
    )
    audios: tuple[int, ...] = setting((1, 2, 4, 8, 16), doc="Clips per prompt.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One question, ready to be batched.

    Attributes:
        text: the prompt after the chat template.
        tokens: the prompt's token ids, with one placeholder for each audio frame.
        waveforms: the question's clips at 16 kHz.
        record: the record that the example was made from.
        answer: ids of the supervised answer; None without one.
        index: the record's index in the dataset.
    """

    text: str
    tokens: np.ndarray
    waveforms: tuple[np.ndarray, ...]
    record: Record | None = None
    answer: np.ndarray | None = None
    index: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of questions: arrays for the device, and the records for the host.

    Attributes:
        prompts: B rows. Rows past `len(records)` repeat the first one and count nowhere.
        indices: [B] the index of each row's record in the dataset.
        records: the records of the rows that are not padding.
        answers: [B, 1, T] supervised targets, or None.
        answer_mask: [B, 1, T] false for padding and for padded rows; None without answers.
        pad_id: the token that fills up prompts and answers.
        repeats: [B] how often a row's example occurs before it in the global batch; None for never.
    """

    prompts: Prompts
    indices: np.ndarray
    records: tuple[Record, ...]
    answers: np.ndarray | None = None
    answer_mask: np.ndarray | None = None
    pad_id: int = 0
    repeats: np.ndarray | None = None

    @property
    def sampling_seeds(self) -> np.ndarray:
        """The [B] seeds for sampling. An example that is repeated in a batch gets different seeds."""
        return self.indices if self.repeats is None else self.indices + self.repeats * REPEAT

    def parts(self, count: int, shapes: Shapes) -> list["Batch"]:
        """Divides the rows into `count` equal parts from short to long, each in the smallest shapes that hold its rows.

        If several hosts feed a part, its shapes hold the rows of all of them, and all hosts must call this together.

        Raises:
            InputError: the rows do not divide into that many parts.
        """
        parts = [self]
        if count > 1:
            rows = np.argsort(self.prompts.lengths, kind="stable")
            if len(rows) % count:
                raise InputError(
                    f"config: micro_batches = {count} does not divide {len(rows)} rows; set a divisor of the rows"
                )
            parts = [self.only(part, shapes) for part in np.split(rows, count)]
        if not hosts.is_multihost():
            return parts
        sizes = hosts.all_gather(np.array([part.sizes for part in parts], np.int32)).max(axis=0)
        return [part.sized(*map(int, row)) for part, row in zip(parts, sizes, strict=True)]

    def only(self, rows: np.ndarray, shapes: Shapes) -> "Batch":
        """Returns these rows, none of them padding, in the smallest shapes that hold them."""
        _, audios, size, longest = self.sizes
        arrays = {name: getattr(self, name) for name in ARRAYS}
        part = dataclasses.replace(
            self,
            records=tuple(self.records[row] for row in rows if row < len(self.records)),
            **jax.tree.map(lambda array: array[rows], arrays),
        )
        tokens = bucket(int(part.prompts.lengths.max()), shapes, "prompt_tokens")
        samples = clip_size(int(part.prompts.samples.max()), shapes.audio_seconds, size)
        if part.answer_mask is not None:
            longest = bucket(int(part.answer_mask.sum(-1).max()), shapes, "answer_tokens")
        return part.sized(tokens, audios, samples, longest)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The sizes of the axes that may be padded: prompt tokens, clips, samples of a clip, answer tokens."""
        answer = 0 if self.answers is None else self.answers.shape[-1]
        return self.prompts.tokens.shape[1], *self.prompts.waveforms.shape[1:], answer

    def sized(self, tokens: int, audios: int, samples: int, answer: int) -> "Batch":
        """Returns the same rows padded or cut to these sizes, which must hold them."""
        whole = self.prompts
        prompts = Prompts(
            _fit(whole.tokens, (tokens,), self.pad_id),
            whole.lengths,
            _fit(whole.audio_index, (tokens, 2), -1),
            _fit(whole.waveforms, (audios, samples), 0),
            _fit(whole.samples, (audios,), 0),
        )
        answers, mask = self.answers, self.answer_mask
        if answers is not None:
            answers, mask = (
                _fit(x, (answer,), fill) for x, fill in ((answers, self.pad_id), (mask, False))
            )
        return dataclasses.replace(self, prompts=prompts, answers=answers, answer_mask=mask)


# The fields of a `Batch` that have a row for each question.
ARRAYS = ("prompts", "indices", "answers", "answer_mask", "repeats")


def _fit(array: np.ndarray, sizes: tuple[int, ...], fill: int) -> np.ndarray:
    """Cuts or pads the last axes to `sizes`."""
    kept = array[(..., *(slice(size) for size in sizes))]
    missing = [size - had for size, had in zip(sizes, kept.shape[-len(sizes) :], strict=True)]
    if not any(missing):
        return kept
    widths = [(0, 0)] * (array.ndim - len(sizes)) + [(0, size) for size in missing]
    return np.pad(kept, widths, constant_values=fill)


class Processor:
    """A model directory's tokenizer and chat template.

    Args:
        model_dir: the directory.
        config: the directory's; it has the longest clip and the audio placeholder's token.

    Raises:
        InputError: there is no tokenizer or no chat template, or they do not fit each other or the config.
    """

    def __init__(self, model_dir: Path | str, config: AudioLMConfig):
        from transformers import AutoTokenizer
        from transformers.utils import logging

        self.model_dir = Path(model_dir)
        self.seconds = config.encoder.seconds
        templates = ChatTemplates(self.model_dir)
        verbosity = logging.get_verbosity()
        try:
            # It would warn about the voice settings in Omni's own config.json.
            logging.set_verbosity_error()
            self.tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        except Exception as error:  # transformers raises a dozen kinds, all meaning a bad directory
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{model_dir}: no usable tokenizer ({reason}); take its files from the model's page"
            ) from error
        finally:
            logging.set_verbosity(verbosity)
        vocabulary = self.tokenizer.get_vocab()
        if END not in vocabulary:
            raise InputError(
                f"{model_dir}: the tokenizer has no token {END}; give the directory of a Qwen model"
            )
        self.audio_id = config.audio_token_id
        self.audio = self.tokenizer.convert_ids_to_tokens(self.audio_id)
        if not self.audio:
            raise InputError(
                f"{model_dir}: the audio placeholder in config.json is token {self.audio_id}, but the tokenizer's last"
                f" token is {len(self.tokenizer) - 1}; take config and tokenizer from one model"
            )
        added = self.tokenizer.added_tokens_decoder.values()
        special = [re.escape(token.content) for token in added if token.special]
        self._special = re.compile("|".join(special) or r"(?!)")
        self.template = templates.chosen(self.tokenizer, self.audio, self.audio_id)
        self.end_ids = self._end_ids(vocabulary)
        self.pad_id = vocabulary.get(END_OF_TEXT, self.end_ids[0])

    def _end_ids(self, vocabulary: dict[str, int]) -> tuple[int, ...]:
        """Returns the tokens that end an answer: Qwen's two, and those that generation_config.json adds."""
        path = self.model_dir / "generation_config.json"
        named: Any = None
        if path.is_file():
            try:
                named = json.loads(path.read_text()).get("eos_token_id")
            except (ValueError, AttributeError, RecursionError) as error:
                raise InputError(f"{path}: not a JSON object; fetch the file again") from error
        named = named if isinstance(named, list) else [] if named is None else [named]
        if not all(type(token) is int for token in named):
            raise InputError(
                f"{path}: eos_token_id {named} must be one or more token ids; fetch the file again"
            )
        known = [vocabulary[token] for token in (END, END_OF_TEXT) if token in vocabulary]
        return tuple(dict.fromkeys([*known, *named]))

    def prompt_text(self, user_text: str, audios: int) -> str:
        """Returns the exact text after the chat template, with one placeholder per clip."""
        return self.template.question(user_text, audios)

    def encode(
        self, text: str, waveforms: Sequence[np.ndarray], names: Sequence[str] = ()
    ) -> Example:
        """Tokenizes a prompt, and repeats each placeholder as often as its clip has frames.

        Args:
            text: the prompt, with one placeholder per clip.
            waveforms: the clips at 16 kHz.
            names: the names of the clips in messages; default "clip 1" and so on.

        Raises:
            InputError: placeholders and clips differ in number; a clip is too short or too long.
        """
        tokens = self.tokens(text)
        is_audio = tokens == self.audio_id
        if (found := int(is_audio.sum())) != len(waveforms):
            raise InputError(
                f"the prompt has {found} {self.audio} placeholders for {len(waveforms)} clips;"
                " take the placeholder out of the question or give as many clips"
            )
        for i, waveform in enumerate(waveforms):
            self._check_length(names[i] if i < len(names) else f"clip {i + 1}", len(waveform))
        # Repeating tokens is far quicker than tokenizing a text with hundreds of placeholders.
        counts = np.ones(len(tokens), int)
        counts[is_audio] = [frame_counts(len(waveform))[1] for waveform in waveforms]
        return Example(text=text, tokens=np.repeat(tokens, counts), waveforms=tuple(waveforms))

    def _check_length(self, name: str, samples: int) -> None:
        """Checks the length of a clip.

        Raises:
            InputError: the clip is too short or too long for the audio tower.
        """
        seconds = samples / SAMPLE_RATE
        if samples > self.seconds * SAMPLE_RATE:
            raise InputError(
                f"{name}: {seconds:.1f} s is longer than the limit of {self.seconds} s; split it, or set start and end"
                " in its record"
            )
        if samples < MIN_SAMPLES:
            raise InputError(
                f"{name}: {seconds:.3f} s is shorter than the minimum of 0.021 s; give a longer clip"
            )

    def question(
        self,
        record: Record,
        style: Style,
        *,
        index: int = 0,
        answer: bool = False,
        waveforms: Sequence[np.ndarray] | None = None,
    ) -> Example:
        """Makes the example of a record in a style.

        Args:
            record: the question.
            style: the answer style that the prompt asks for.
            index: the record's index in the dataset.
            answer: whether to make the supervised target too.
            waveforms: the record's clips; None reads them from disk.

        Raises:
            InputError: the record cannot be used; see `encode` and `Style.render`.
        """
        if waveforms is None:
            longest = self.seconds
            waveforms = [load_clip(c.path, c.start, c.end, longest=longest) for c in record.audio]
        message = question_text(record.question, record.choices, style)
        self._refuse_special(message.replace(self.audio, ""), "question")
        text = self.prompt_text(message, len(waveforms))
        example = self.encode(text, waveforms, [clip.path for clip in record.audio])
        target = None
        if answer:
            rendered = style.render(record)
            self._refuse_special(rendered, "chain")
            target = self.tokens(rendered + END)
        return dataclasses.replace(example, record=record, answer=target, index=index)

    def _refuse_special(self, text: str, called: str) -> None:
        """Checks that a text has no special token.

        Raises:
            InputError: the text contains a special token, for instance one that ends a turn or stands for audio.
        """
        if found := self._special.search(text):
            raise InputError(
                f"the {called} contains {found[0]!r}, a special token of the model; take it out of the text"
            )

    def tokens(self, text: str) -> np.ndarray:
        """Returns the ids of a text; special tokens in it are recognised, none is added."""
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def texts(self, tokens: np.ndarray, lengths: np.ndarray) -> list[str]:
        """Decodes ids [N, T] of completions, without the end token; other special tokens stay visible."""
        rows = [
            [int(t) for t in row[:length] if int(t) not in self.end_ids]
            for row, length in zip(np.asarray(tokens), np.asarray(lengths), strict=True)
        ]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=False)

    def collate(
        self, examples: Sequence[Example], shapes: Shapes, rows: int | None = None
    ) -> Batch:
        """Makes a batch of examples: pads them to a bucket, and adds rows up to `rows`.

        Raises:
            InputError: an example fits no bucket.
        """
        real = len(examples)
        rows = rows or real
        p, a, s, t = self.sizes(examples, shapes)
        tokens = np.full((rows, p), self.pad_id, np.int32)
        lengths = np.ones(rows, np.int32)
        audio_index = np.full((rows, p, 2), -1, np.int32)
        waveforms, samples = np.zeros((rows, a, s), np.float32), np.zeros((rows, a), np.int32)
        indices = np.zeros(rows, np.int32)
        for row in range(rows):
            example = examples[row if row < real else 0]
            size = len(example.tokens)
            tokens[row, :size], lengths[row], indices[row] = example.tokens, size, example.index
            counts = np.array([frame_counts(len(w))[1] for w in example.waveforms], int)
            where = np.flatnonzero(example.tokens == self.audio_id)
            audio_index[row, where, 0] = np.repeat(np.arange(len(counts)), counts)
            audio_index[row, where, 1] = np.concatenate([*map(np.arange, counts), np.arange(0)])
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
        return Batch(
            prompts=prompts,
            indices=indices,
            records=records,
            answers=answers,
            answer_mask=mask,
            pad_id=self.pad_id,
        )

    def sizes(self, examples: Sequence[Example], shapes: Shapes) -> tuple[int, int, int, int]:
        """Returns the buckets that hold all examples: prompt tokens, clips, samples of a clip, answer tokens or 0.

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
    """Returns the smallest size of `shapes` for this key that holds `value`.

    Raises:
        InputError: no size does.
    """
    sizes = getattr(shapes, key)
    for size in sizes:
        if value <= size:
            return int(size)
    what = {"audios": "clips in a prompt"}.get(key, key.replace("_", " "))
    raise InputError(
        f"{value} {what} are more than {sizes[-1]}, the largest of data.shapes.{key}; add a larger size to it, or give"
        " fewer"
    )


def clip_size(longest: int, seconds: tuple[float, ...], limit: int) -> int:
    """Returns the smallest bucket, in samples, that holds the clip and the silence that its last frames look at.

    Args:
        longest: samples of the longest clip.
        seconds: the buckets.
        limit: samples of the audio tower's longest clip; a clip of this length needs no silence.

    Raises:
        InputError: no bucket holds it.
    """
    for bucket in seconds:
        size = min(round(bucket * SAMPLE_RATE / STRIDE) * STRIDE, limit)
        if size == limit or longest + LOOKAHEAD <= size:
            if longest <= size:
                return size
    raise InputError(
        f"a clip of {longest / SAMPLE_RATE:.1f} s does not fit data.shapes.audio_seconds = {seconds}"
        f" with {1000 * LOOKAHEAD / SAMPLE_RATE:.0f} ms of silence after it; add a larger size to it,"
        f" {limit // SAMPLE_RATE} at most"
    )
