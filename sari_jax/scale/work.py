"""The work of the benchmark: one model and one batch, written once and read by both sides."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from sari_jax.errors import InputError
from sari_jax.models.encoder import frame_counts

RATE = 16_000
# Placeholder of audio in the made-up vocabulary.
AUDIO_ID = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Sizes of the model and of a step. The defaults are ours; they make about 67M parameters.

    Attributes:
        audio_seconds, text_tokens: sizes of a GRPO prompt.
        num_completions, new_tokens: G and T. Every completion has T tokens: no end token is drawn.
        sft_rows: examples of an SFT step; their lengths differ, with clips of up to `audio_seconds`.
        sft_parts: `micro_batches` of our side. PyTorch's side pads all rows to the longest, as its trainers do.
        threads: the number of processors of each side.
        rounds: the number of times each phase is timed on each side.
    """

    mel_bins: int = 80
    encoder_layers: int = 4
    encoder_width: int = 384
    encoder_heads: int = 6
    encoder_ffn: int = 1536
    layers: int = 8
    width: int = 512
    heads: int = 8
    ffn: int = 1408
    vocabulary: int = 32_000
    audio_seconds: float = 30.0
    text_tokens: int = 64
    num_completions: int = 8
    new_tokens: int = 64
    sft_rows: int = 16
    sft_parts: int = 8
    threads: int = 2
    rounds: int = 5

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if name != "audio_seconds" and value < 1:
                raise InputError(f"config: {name} = {value} must be at least 1")
        if not 0.2 <= self.audio_seconds <= 30:
            raise InputError(f"config: audio_seconds = {self.audio_seconds} must be from 0.2 to 30")
        for name, value, by in (
            ("encoder_width", self.encoder_width, 2 * self.encoder_heads),
            ("width", self.width, 2 * self.heads),
            ("sft_rows", self.sft_rows, self.sft_parts),
        ):
            if value % by:
                raise InputError(f"config: {name} = {value} must be a multiple of {by}")


def make(work: Work, directory: Path, seed: int = 0) -> None:
    """Writes `model`, a random Qwen2-Audio as transformers saves it, `work.json` and `batch.npz`.

    batch.npz holds for GRPO `tokens` [P] with the audio's placeholders, `waveform` [S], `completions` [G, T] and
    `advantages` [G]; for SFT `sft_tokens` [R, P] with `sft_lengths` [R], `sft_waveforms` [R, S] with `sft_samples` [R],
    and `sft_answers` [R, T] with `sft_answer_lengths` [R].
    """
    import torch
    from transformers import Qwen2AudioForConditionalGeneration

    directory.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    Qwen2AudioForConditionalGeneration(_config(work)).save_pretrained(directory / "model")
    (directory / "work.json").write_text(json.dumps(dataclasses.asdict(work)))
    np.savez(directory / "batch.npz", **_batch(work, np.random.default_rng(seed)))


def _config(work: Work) -> Any:
    """Returns the model's config in transformers' form."""
    from transformers import Qwen2AudioConfig

    return Qwen2AudioConfig(
        audio_token_index=AUDIO_ID,
        audio_config=dict(
            num_mel_bins=work.mel_bins,
            d_model=work.encoder_width,
            encoder_layers=work.encoder_layers,
            encoder_attention_heads=work.encoder_heads,
            encoder_ffn_dim=work.encoder_ffn,
        ),
        text_config=dict(
            model_type="qwen2",
            vocab_size=work.vocabulary,
            hidden_size=work.width,
            intermediate_size=work.ffn,
            num_hidden_layers=work.layers,
            num_attention_heads=work.heads,
            num_key_value_heads=work.heads,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        ),
        tie_word_embeddings=False,
    )


def read(directory: Path) -> tuple[Work, dict[str, np.ndarray]]:
    """Reads the work and the batch that `make` wrote."""
    with np.load(directory / "batch.npz") as arrays:
        batch = dict(arrays)
    return Work(**json.loads((directory / "work.json").read_text())), batch


def _batch(work: Work, rng: np.random.Generator) -> dict[str, np.ndarray]:
    def text(size: int) -> np.ndarray:
        return rng.integers(AUDIO_ID + 1, work.vocabulary, size).astype(np.int32)

    def prompt(samples: int, words: int) -> np.ndarray:
        audio = np.full(frame_counts(samples)[1], AUDIO_ID, np.int32)
        return np.concatenate([text(words // 2), audio, text(words - words // 2)])

    def padded(rows: list[np.ndarray]) -> np.ndarray:
        size = max(map(len, rows))
        return np.stack([np.pad(row, (0, size - len(row))) for row in rows])

    longest = round(work.audio_seconds * RATE)
    samples = rng.integers(longest // 10, longest + 1, work.sft_rows)
    samples[0] = longest
    prompts = [prompt(int(n), int(rng.integers(32, 97))) for n in samples]
    answers = [text(int(rng.integers(16, 65))) for _ in samples]
    waveforms = [0.1 * rng.standard_normal(n, np.float32) for n in samples]
    advantages = rng.standard_normal(work.num_completions).astype(np.float32)
    return {
        "tokens": prompt(longest, work.text_tokens),
        "waveform": 0.1 * rng.standard_normal(longest, np.float32),
        "completions": text(work.num_completions * work.new_tokens).reshape(
            work.num_completions, -1
        ),
        "advantages": advantages,
        "sft_tokens": padded(prompts),
        "sft_lengths": np.array([len(row) for row in prompts], np.int32),
        "sft_waveforms": padded(waveforms),
        "sft_samples": samples.astype(np.int32),
        "sft_answers": padded(answers),
        "sft_answer_lengths": np.array([len(row) for row in answers], np.int32),
    }
