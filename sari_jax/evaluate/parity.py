"""The same inputs through transformers and through this package: `sari check`."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from sari_jax.data.processor import Batch, Processor, Shapes
from sari_jax.errors import InputError, require
from sari_jax.generate.engine import Engine
from sari_jax.hf.config import read_family
from sari_jax.models.audio_lm import bind

TOLERANCE = 1e-4  # largest difference of a logit, float32
QUESTION = "Which of these do you hear? Answer in a few words."


@dataclasses.dataclass(frozen=True)
class Parity:
    max_abs_logit_diff: float
    mean_kl: float  # of ours from theirs, nats per position
    greedy_equal: bool
    ok: bool


def check(model_dir: Path | str, *, tokens: int = 16, seed: int = 0) -> Parity:
    """Compares logits and greedy tokens on two synthetic clips of unlike length, in float32.

    Raises:
        InputError: PyTorch is not installed, or the directory cannot be read by one of the two.
    """
    require("sari check", "bench", "torch")
    import torch
    import transformers

    engine = Engine(model_dir)
    batch, examples = _inputs(engine.processor, seed)
    ours = np.asarray(
        jax.jit(lambda params, prompts: bind(engine.config, params).prompt_logits(prompts))(
            engine.params, batch.prompts
        )
    )
    sampler = engine.sampler(1, tokens, 0.0)
    our_tokens = [
        a.token_ids[0] for a in engine.answer(examples, sampler, Shapes(), rows=len(examples))
    ]

    try:
        reference = getattr(transformers, read_family(model_dir).reference)
        theirs = reference.from_pretrained(model_dir, dtype=torch.float32).eval()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{model_dir}: transformers cannot open it ({reason})") from error
    encoder = engine.config.encoder
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=encoder.mel_bins, chunk_length=encoder.seconds
    )
    worst, kl, equal = 0.0, [], True
    for row, example in enumerate(examples):
        sound = extractor(
            list(example.waveforms),
            sampling_rate=16_000,
            return_attention_mask=True,
            return_tensors="pt",
        )
        inputs = dict(
            input_ids=torch.tensor(example.tokens[None].astype(np.int64)),
            attention_mask=torch.ones(1, len(example.tokens), dtype=torch.long),
            input_features=sound.input_features,
            feature_attention_mask=sound.attention_mask,
        )
        with torch.no_grad():
            logits = theirs(**inputs).logits[0]
            generated = theirs.generate(
                **inputs,
                max_new_tokens=tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                eos_token_id=list(engine.processor.end_ids),
                pad_token_id=engine.processor.pad_id,
            )[0, len(example.tokens) :].tolist()
        mine = torch.tensor(ours[row, : len(example.tokens)])
        worst = max(worst, float((mine - logits).abs().max()))
        p, q = logits.log_softmax(-1), mine.log_softmax(-1)
        kl.append(float((p.exp() * (p - q)).sum(-1).mean()))
        equal &= generated == our_tokens[row]
    return Parity(worst, float(np.mean(kl)), equal, worst <= TOLERANCE and equal)


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
