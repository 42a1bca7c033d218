"""A comparison with transformers on the same inputs: `sari check`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sari_jax.data.processor import SAMPLE_RATE, Batch, Example, Processor, Shapes
from sari_jax.errors import InputError, require
from sari_jax.generate.engine import Engine
from sari_jax.hf.config import read_family
from sari_jax.models.audio_lm import bind

# The largest difference of a logit, in float32.
TOLERANCE = 1e-4
QUESTION = "Which of these do you hear? Answer in a few words."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """The distance of a model's outputs from those of transformers.

    Attributes:
        max_abs_logit_diff: the largest difference of a logit.
        mean_kl: the mean KL divergence of transformers' distributions from ours, in nats per position.
        greedy_equal: whether greedy decoding gives the same tokens.
        ok: whether the difference is within `TOLERANCE` and the tokens are the same.
    """

    max_abs_logit_diff: float
    mean_kl: float
    greedy_equal: bool
    ok: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """A model directory as transformers opens it.

    Attributes:
        model: the model, in float32.
        extractor: the feature extractor of the model.
        end_ids, pad_id: the tokens that end and pad a completion.
    """

    model: Any
    extractor: Any
    end_ids: tuple[int, ...]
    pad_id: int

    def run(self, example: Example, num_tokens: int) -> tuple[Any, list[int]]:
        """Returns the logits of an example's prompt and the tokens of greedy decoding."""
        import torch

        features = self.extractor(
            list(example.waveforms),
            sampling_rate=SAMPLE_RATE,
            return_attention_mask=True,
            return_tensors="pt",
        )
        length = len(example.tokens)
        inputs = dict(
            input_ids=torch.tensor(example.tokens[None].astype(np.int64)),
            attention_mask=torch.ones(1, length, dtype=torch.long),
            input_features=features.input_features,
            feature_attention_mask=features.attention_mask,
        )
        with torch.no_grad():
            logits = self.model(**inputs).logits[0]
            generated = self.model.generate(
                **inputs,
                max_new_tokens=num_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                eos_token_id=list(self.end_ids),
                pad_token_id=self.pad_id,
            )
        return logits, generated[0, length:].tolist()


def check(
    model_dir: Path | str, *, tokens: int = 16, seed: int = 0, engine: Engine | None = None
) -> Parity:
    """Compares logits and greedy tokens on two synthetic clips of different lengths, in float32.

    Args:
        tokens: the number of tokens to decode.
        engine: the directory in float32, if it is in memory already.

    Raises:
        InputError: PyTorch is not installed, or the directory cannot be read by one of the two.
    """
    require("sari check", "bench", "torch")
    import torch

    engine = engine or Engine(model_dir)
    batch, examples = _inputs(engine.processor, seed)
    our_logits, our_tokens = _run(engine, batch, examples, tokens)
    reference = _reference(model_dir, engine)
    worst = 0.0
    divergences = []
    equal = True
    for row, example in enumerate(examples):
        logits, generated = reference.run(example, tokens)
        ours = torch.tensor(our_logits[row, : len(example.tokens)])
        worst = max(worst, float((ours - logits).abs().max()))
        p = logits.log_softmax(-1)
        q = ours.log_softmax(-1)
        divergences.append(float((p.exp() * (p - q)).sum(-1).mean()))
        equal &= generated == our_tokens[row]
    return Parity(
        max_abs_logit_diff=worst,
        mean_kl=float(np.mean(divergences)),
        greedy_equal=equal,
        ok=worst <= TOLERANCE and equal,
    )


def _run(
    engine: Engine, batch: Batch, examples: Sequence[Example], num_tokens: int
) -> tuple[np.ndarray, list[list[int]]]:
    """Returns our logits of the prompts, and our tokens of greedy decoding."""

    @jax.jit
    def prompt_logits(params, prompts):
        return bind(engine.config, params).prompt_logits(prompts)

    logits = np.asarray(prompt_logits(engine.params, batch.prompts))
    sampler = engine.sampler(1, num_tokens, 0.0)
    answered = engine.answer(examples, sampler, Shapes(), rows=len(examples))
    return logits, [one.token_ids[0] for one in answered]


def _reference(model_dir: Path | str, engine: Engine) -> Reference:
    """Opens the directory with transformers.

    Raises:
        InputError: transformers cannot open it.
    """
    import torch
    import transformers

    try:
        kind = getattr(transformers, read_family(model_dir).reference)
        model = kind.from_pretrained(model_dir, dtype=torch.float32).eval()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{model_dir}: transformers cannot open it ({reason})") from error
    encoder = engine.config.encoder
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=encoder.mel_bins, chunk_length=encoder.seconds
    )
    processor = engine.processor
    return Reference(
        model=model, extractor=extractor, end_ids=processor.end_ids, pad_id=processor.pad_id
    )


def _inputs(processor: Processor, seed: int) -> tuple[Batch, list[Example]]:
    """Returns two examples with a chirp each, as a batch and one by one."""
    noise = np.random.default_rng(seed)
    examples = []
    for seconds in (1.3, 2.9):
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        chirp = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.02 * noise.standard_normal(
            time.size
        )
        text = processor.prompt_text(QUESTION, 1)
        examples.append(processor.encode(text, [chirp.astype(np.float32)]))
    return processor.collate(examples, Shapes()), examples
