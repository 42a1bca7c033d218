"""The same inputs through transformers and through this package: `sari check`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import log_softmax, softmax

from sari_jax.data.processor import Batch, Example, Processor, Shapes
from sari_jax.errors import InputError
from sari_jax.generate.engine import Engine
from sari_jax.models.audio_lm import bind

TOLERANCE = 1e-4  # largest difference of a logit, float32
ROUNDING = 2.0  # ours; two float32 programs that add in other orders may differ so much in their distance from float64
QUESTION = "Which of these do you hear? Answer in a few words."


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far this package is from transformers, in float32.

    Attributes:
        mean_kl: of ours from theirs, nats per position.
        our_error, their_error: largest distance of a logit from transformers' float64, ours and that of its float32.
            Only where `max_abs_logit_diff` exceeds 1e-4; None where it was not needed.
        ok: greedy tokens are equal and no logit differs by more than 1e-4; or, where logits are so large that
            float32 cannot settle it, ours are at most twice as far from float64 as transformers' own float32.
    """

    max_abs_logit_diff: float
    mean_kl: float
    greedy_equal: bool
    ok: bool
    our_error: float | None = None
    their_error: float | None = None


def check(model_dir: Path | str, *, tokens: int = 16, seed: int = 0) -> Parity:
    """Compares logits and greedy tokens on two synthetic clips of unlike length.

    Raises:
        InputError: PyTorch is not installed, or the directory cannot be read by one of the two.
    """
    try:
        import torch
        from transformers import Qwen2AudioForConditionalGeneration
    except ImportError as error:
        raise InputError(
            "sari check compares with PyTorch: pip install 'sari_jax[bench]'"
        ) from error

    engine = Engine(model_dir)
    batch, examples = _inputs(engine.processor, seed)
    ours = np.asarray(
        jax.jit(lambda params, prompts: bind(engine.config, params).prompt_logits(prompts))(
            engine.params, batch.prompts
        )
    )
    ours = [row[: len(example.tokens)] for row, example in zip(ours, examples, strict=True)]
    sampler = engine.sampler(1, tokens, 0.0)
    our_tokens = [
        a.token_ids[0] for a in engine.answer(examples, sampler, Shapes(), rows=len(examples))
    ]

    model = Qwen2AudioForConditionalGeneration.from_pretrained(
        model_dir, dtype=torch.float32
    ).eval()
    inputs = [_torch_inputs(example, engine.config.encoder.mel_bins) for example in examples]

    def their_logits() -> list[np.ndarray]:
        with torch.no_grad():
            return [model(**row).logits[0].numpy() for row in inputs]

    theirs, equal = their_logits(), True
    for row, expected in zip(inputs, our_tokens, strict=True):
        generated = model.generate(
            **row,
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=list(engine.processor.end_ids),
            pad_token_id=engine.processor.pad_id,
        )
        equal &= generated[0, row["input_ids"].shape[1] :].tolist() == expected
    difference, kl = _largest(ours, theirs), _mean_kl(theirs, ours)
    if difference <= TOLERANCE:
        return Parity(difference, kl, equal, equal)
    model.double()
    for row in inputs:
        row["input_features"] = row["input_features"].double()
    exact = their_logits()
    our_error, their_error = _largest(ours, exact), _largest(theirs, exact)
    ok = equal and our_error <= ROUNDING * their_error
    return Parity(difference, kl, equal, ok, our_error, their_error)


def _largest(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


def _mean_kl(p: list[np.ndarray], q: list[np.ndarray]) -> float:
    """Of q from p, both logits; each prompt counts once."""
    return float(
        np.mean(
            [
                np.sum(
                    softmax(a, axis=-1) * (log_softmax(a, axis=-1) - log_softmax(b, axis=-1)),
                    axis=-1,
                ).mean()
                for a, b in zip(p, q, strict=True)
            ]
        )
    )


def _torch_inputs(example: Example, mel_bins: int) -> dict[str, Any]:
    import torch
    from transformers import WhisperFeatureExtractor

    sound = WhisperFeatureExtractor(feature_size=mel_bins)(
        list(example.waveforms),
        sampling_rate=16_000,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return dict(
        input_ids=torch.tensor(example.tokens[None].astype(np.int64)),
        attention_mask=torch.ones(1, len(example.tokens), dtype=torch.long),
        input_features=sound.input_features,
        feature_attention_mask=sound.attention_mask,
    )


def _inputs(processor: Processor, seed: int) -> tuple[Batch, list]:
    noise = np.random.default_rng(seed)
    examples = []
    for seconds in (1.3, 2.9):
        time = np.arange(int(seconds * 16_000)) / 16_000
        chirp = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.02 * noise.standard_normal(
            time.size
        )
        text = processor.prompt_text(QUESTION, 1)
        examples.append(processor.encode(text, [chirp.astype(np.float32)]))
    return processor.collate(examples, Shapes()), examples
