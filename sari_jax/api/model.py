"""A model directory that answers questions about audio."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from sari_jax.audio.clips import load_clip
from sari_jax.data.processor import Example, Shapes
from sari_jax.data.records import Clip, Record
from sari_jax.data.styles import Style, question_text
from sari_jax.data.styles import style as style_named
from sari_jax.errors import InputError
from sari_jax.evaluate.parity import Parity
from sari_jax.evaluate.parity import check as check_parity
from sari_jax.generate.engine import Answered, Engine

# A file, a span of a file, or a waveform: [S] floats at 16 kHz.
Audio = str | Path | Clip | np.ndarray
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about one or more clips.

    Attributes:
        audio: a path, a `Clip` with `start` and `end` in seconds, a waveform of floats at 16 kHz, or a list of them.
        choices: the answers to choose from; none for an open question.
    """

    audio: Audio | Sequence[Audio]
    question: str
    choices: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One completion of a question.

    Attributes:
        prompt: the exact text that the model was given.
        completion: the text that it wrote, without the end token.
        answer: what stands in the completion's answer tag; None if there is none.
        sections: the complete parts of its chain of thought, by name.
        token_ids: the completion's tokens, the end token included.
        logprobs: the log-probability of each token under softmax(logits / temperature); under softmax(logits) at
            temperature 0.
        done: whether the completion ended before `max_tokens`.
    """

    prompt: str
    completion: str
    answer: str | None
    sections: dict[str, str]
    token_ids: list[int]
    logprobs: list[float]
    done: bool


class Model:
    """A model directory in memory, ready to answer. `load` makes it.

    Attributes:
        directory: where its files are.
        dtype: of its activations; its parameters keep the directory's dtype.
        engine: what computes; for more than this class offers.
    """

    def __init__(self, directory: Path | str, *, dtype: str = "float32"):
        if dtype not in DTYPES:
            raise InputError(f"dtype {dtype!r} is unknown; choose {' or '.join(DTYPES)}")
        self.directory = Path(directory)
        self.dtype = dtype
        self.engine = Engine(directory, dtype=dtype)

    def __repr__(self) -> str:
        return f"Model({str(self.directory)!r}, dtype={self.dtype!r})"

    def ask(
        self,
        audio: Audio | Sequence[Audio],
        question: str,
        choices: Sequence[str] | None = None,
        *,
        style: str = "structured",
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """Answers one question about one or more clips.

        Args:
            audio, question, choices: see `Question`.
            style: how to answer: structured, free or direct.
            max_tokens: the longest completion; None for the style's own limit, 256 for direct and 512 otherwise.
            temperature: 0 chooses the likeliest token each time; above 0, `seed` decides what is drawn.

        Raises:
            InputError: the audio cannot be read or is too long, or a setting has no such value.
        """
        (answer,) = self.generate(
            Question(audio, question, choices),
            num_completions=1,
            style=style,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
        )
        return answer

    @overload
    def generate(self, questions: Question | Record, **settings: object) -> list[Answer]: ...

    @overload
    def generate(
        self, questions: Sequence[Question | Record], **settings: object
    ) -> list[list[Answer]]: ...

    def generate(
        self,
        questions: Question | Record | Sequence[Question | Record],
        *,
        num_completions: int = 8,
        style: str = "structured",
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        rows: int = 8,
    ) -> list[Answer] | list[list[Answer]]:
        """Samples several completions of each question.

        Args:
            questions: one question or a list of them; records of a corpus are questions, too.
            num_completions: how many of each.
            top_k: keep the k likeliest tokens; 0 keeps all.
            top_p: keep the smallest set of likeliest tokens whose probability reaches p; 1 keeps all.
            rows: questions in a batch. It changes speed and memory, not what is drawn.

        Returns:
            The completions of the one question, or a list of them for each question.

        Raises:
            InputError: as `ask`.
        """
        answer_style = style_named(style)
        is_one = isinstance(questions, Question | Record)
        asked = [questions] if is_one else questions
        examples = [
            self._example(question, answer_style, index) for index, question in enumerate(asked)
        ]
        sampler = self.engine.sampler(
            num_completions,
            answer_style.max_tokens if max_tokens is None else max_tokens,
            temperature,
            top_k=top_k,
            top_p=top_p,
        )
        rows = max(1, min(rows, len(examples)))
        answered = self.engine.answer(examples, sampler, Shapes(), rows=rows, seed=seed)
        answers = [_answers(one, answer_style) for one in answered]
        return answers[0] if is_one else answers

    def check(self) -> Parity:
        """Compares this directory's logits and greedy tokens with those of transformers, in float32: `sari check`.

        Raises:
            InputError: PyTorch is not installed, or transformers cannot open the directory.
        """
        engine = self.engine if self.dtype == "float32" else None
        return check_parity(self.directory, engine=engine)

    def _example(self, asked: Question | Record, style: Style, index: int) -> Example:
        processor = self.engine.processor
        clips = asked.audio if isinstance(asked.audio, list | tuple) else (asked.audio,)
        waveforms = [waveform(clip, processor.seconds) for clip in clips]
        names = [_name(clip, place) for place, clip in enumerate(clips)]
        text = question_text(asked.question, tuple(asked.choices or ()), style)
        example = processor.encode(
            processor.prompt_text(text, len(waveforms)), waveforms, names=names
        )
        return dataclasses.replace(example, index=index)


def load(directory: Path | str, *, dtype: str = "float32") -> Model:
    """Loads a model directory: its layers split over the devices of this host.

    Args:
        directory: a Hugging Face directory of a supported family, on disk.
        dtype: of activations, float32 or bfloat16; parameters keep the directory's own dtype.

    Raises:
        InputError: the directory cannot be used; the message says why.
    """
    return Model(directory, dtype=dtype)


def waveform(audio: Audio, seconds: int) -> np.ndarray:
    """Returns a clip's samples at 16 kHz.

    Raises:
        InputError: it cannot be read, is longer than `seconds`, or is an array of another form.
    """
    if isinstance(audio, np.ndarray):
        if audio.ndim != 1 or audio.dtype.kind != "f" or not np.isfinite(audio).all():
            raise InputError(
                f"a waveform of shape {audio.shape} and type {audio.dtype} cannot be used; give one channel of finite"
                " floats at 16,000 samples a second"
            )
        return audio.astype(np.float32)
    if isinstance(audio, Clip):
        return load_clip(audio.path, audio.start, audio.end, longest=seconds)
    return load_clip(str(audio), longest=seconds)


def _name(audio: Audio, place: int) -> str:
    if isinstance(audio, np.ndarray):
        return f"clip {place + 1}"
    return audio.path if isinstance(audio, Clip) else str(audio)


def _answers(answered: Answered, style: Style) -> list[Answer]:
    """Returns a question's completions, each by itself."""
    return [
        Answer(
            prompt=answered.example.text,
            completion=text,
            answer=style.answer(text),
            sections=style.sections(text),
            token_ids=answered.token_ids[place],
            logprobs=answered.logprobs[place],
            done=answered.done[place],
        )
        for place, text in enumerate(answered.texts)
    ]
