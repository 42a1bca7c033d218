"""Writes random checkpoints of real sizes, loads and exports them, and compares the model with transformers.

Each phase is a process of its own, so that its peak of resident memory is its own and memory holds one model at a time.
The results are in docs/parity.md. Exit 1 if a limit below is exceeded.

    python -m experiments.sizes qwen2_audio_7b --dir DIR --clip clip.wav     21 GB of memory, 34 GB of disk
    python -m experiments.sizes qwen2_5_omni_3b_thinker --dir DIR --clip clip.wav
"""

import argparse
import filecmp
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sari_jax.atomic import new_directory
from sari_jax.audio.files import load_waveform
from sari_jax.hf.config import read_config, read_family
from sari_jax.hf.export import export
from sari_jax.hf.load import load_params
from sari_jax.hf.names import tensor_rules
from sari_jax.models.audio_lm import Prompts, abstract_params, bind
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.encoder import LOOKAHEAD, frame_counts

# Bytes of a shard, about those of the hub's files.
SHARD = 4_000_000_000
# Limit of the peak memory of loading, relative to the checkpoint's size.
LOAD = 1.15
# Limit of the mean KL between our logits and transformers' in bfloat16, in nats per position.
MEAN_KL = 1e-3
# XLA's CPU compiler computes bfloat16 in float32. With these passes it would convert all layers at once, ahead of the
# scan over them.
HOISTING = "while-loop-invariant-code-motion", "while-loop-expensive-invariant-code-motion"
QWEN2_AUDIO_7B = {
    "model_type": "qwen2_audio",
    "audio_token_index": 151646,
    "audio_config": {"model_type": "qwen2_audio_encoder", "num_mel_bins": 128},
    "text_config": {
        "model_type": "qwen2",
        "vocab_size": 156032,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000,
    },
    "tie_word_embeddings": False,
}
OMNI_3B_THINKER = {
    "model_type": "qwen2_5_omni_thinker",
    "audio_token_index": 151646,
    "audio_config": {"output_dim": 2048},
    "vision_config": {"depth": 1, "hidden_size": 64, "num_heads": 2, "out_hidden_size": 2048},
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    },
    "vision_start_token_id": 151652,
    "tie_word_embeddings": False,
}
CONFIGS = {"qwen2_audio_7b": QWEN2_AUDIO_7B, "qwen2_5_omni_3b_thinker": OMNI_3B_THINKER}


def write(name: str, model: Path) -> None:
    """Writes random bfloat16 weights under the hub's names: norms are 1, all others normal with deviation 0.02."""
    with new_directory(model) as aside:
        _write(name, aside)


def _write(name: str, model: Path) -> None:
    (model / "config.json").write_text(json.dumps(CONFIGS[name] | {"dtype": "bfloat16"}))
    config = read_config(model)
    shapes = {}
    for rule in tensor_rules(config, read_family(model).names(())):
        abstract = abstract_params(config)
        for part in rule.path:
            abstract = abstract[part]
        ours = abstract.shape[1:] if rule.layers else abstract.shape
        theirs = tuple(ours[a] for a in np.argsort(rule.axes)) if len(ours) > 1 else ours
        shapes |= dict.fromkeys(rule.names, theirs)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for tensor, shape in sorted(shapes.items()):
        if size + 2 * np.prod(shape) > SHARD:
            shards.append({})
            size = 0
        shards[-1][tensor] = shape
        size += 2 * int(np.prod(shape))
    rng = np.random.default_rng(0)
    index = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        index |= dict.fromkeys(shard, file)
        _write_shard(model / file, shard, rng)
    total = sum(2 * int(np.prod(shape)) for shape in shapes.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    (model / "model.safetensors.index.json").write_text(text)


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
    """Writes a shard tensor by tensor; the safetensors library would need the whole shard in memory."""
    header = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        end = place + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            if "norm" in name or "ln_post" in name:
                tensor = np.full(shape, float(name.endswith("weight")), np.float32)
            else:
                tensor = 0.02 * rng.standard_normal(shape, np.float32)
            out.write(np.asarray(tensor, jnp.bfloat16).reshape(-1).view(np.uint8).data)


def question(config: AudioLMConfig, clip: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of a prompt around a clip's placeholders, and the first 5 s of the clip."""
    waveform = load_waveform(str(clip))[: 5 * 16_000]
    text = np.random.default_rng(1).integers(0, 150_000, 40)
    audio = np.full(frame_counts(len(waveform))[1], config.audio_token_id)
    return np.concatenate([text[:20], audio, text[20:]]).astype(np.int32), waveform


def ours(model: Path, clip: Path, logits: Path, dtype: str = "bfloat16") -> None:
    """Computes our logits with activations in `dtype`; those in float32 are the reference of both bfloat16 results."""
    config = read_config(model, dtype=dtype)
    tokens, waveform = question(config, clip)
    size = -(-(len(waveform) + LOOKAHEAD) // 640) * 640
    padded = np.zeros((1, 1, size), np.float32)
    padded[0, 0, : len(waveform)] = waveform
    here = np.flatnonzero(tokens == config.audio_token_id)
    audio_index = np.full((1, len(tokens), 2), -1, np.int32)
    audio_index[0, here, 0] = 0
    audio_index[0, here, 1] = np.arange(len(here))
    prompts = Prompts(
        tokens=tokens[None],
        lengths=np.array([len(tokens)], np.int32),
        audio_index=audio_index,
        waveforms=padded,
        samples=np.array([[len(waveform)]], np.int32),
    )
    params = load_params(model, config)
    run = jax.jit(lambda params, prompts: bind(config, params).prompt_logits(prompts))
    np.save(logits, np.asarray(run(params, jax.device_put(prompts)))[0])


def theirs(model: Path, clip: Path, logits: Path) -> None:
    """Computes the logits of transformers."""
    import torch
    import transformers

    config = read_config(model)
    tokens, waveform = question(config, clip)
    reference = getattr(transformers, read_family(model).reference)
    network = reference.from_pretrained(model, dtype=torch.bfloat16).eval()
    extract = transformers.WhisperFeatureExtractor(
        feature_size=config.encoder.mel_bins, chunk_length=config.encoder.seconds
    )
    audio = extract(waveform, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    with torch.no_grad():
        found = network(
            input_ids=torch.tensor(tokens[None].astype(np.int64)),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
            input_features=audio.input_features.to(torch.bfloat16),
            feature_attention_mask=audio.attention_mask,
        ).logits[0]
    np.save(logits, found.float().numpy())


def load(model: Path) -> None:
    jax.block_until_ready(load_params(model, read_config(model)))


def load_and_export(model: Path, out: Path) -> None:
    config = read_config(model)
    export(load_params(model, config), config, model, out)


PHASES: dict[str, Callable[..., None]] = {
    "write": write,
    "load": load,
    "load_and_export": load_and_export,
    "ours": ours,
    "theirs": theirs,
}


def mean_kl(reference: np.ndarray, logits: np.ndarray) -> float:
    """Returns the mean KL from `reference` to `logits`, in nats per position."""
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (reference, logits))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def phase(name: str, *words: object) -> dict[str, float]:
    """Runs a phase in a process of its own; returns its seconds and its peak of resident memory in GB."""
    command = [sys.executable, "-m", "experiments.sizes", "--phase", name, *map(str, words)]
    environment = os.environ | {"XLA_FLAGS": f"--xla_disable_hlo_passes={','.join(HOISTING)}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {result['seconds']:.0f} s, {result['peak_gb']:.2f} GB", file=sys.stderr)
    return result


def run_phase(name: str, words: list[str]) -> None:
    begun = time.monotonic()
    PHASES[name](*(Path(w) if "/" in w else w for w in words))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": time.monotonic() - begun, "peak_gb": peak}))


def main() -> int:
    if sys.argv[1:2] == ["--phase"]:
        run_phase(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    args = parser.parse_args()
    root = args.dir.resolve() / args.name
    result: dict[str, Any] = {"name": args.name}
    result |= load_and_export_phases(args.name, root)
    result |= compare(root, args.clip.resolve())
    result["within"] = within(result)
    print(json.dumps(result, indent=2))
    return 0 if all(result["within"].values()) else 1


def load_and_export_phases(name: str, root: Path) -> dict[str, Any]:
    """Writes the checkpoint if there is none, loads it, and exports it; the export must have the same files."""
    model = root / "model"
    out = root / "export"
    result: dict[str, Any] = {}
    if not model.exists():
        result["write"] = phase("write", name, model)
    shards = sorted(model.glob("*.safetensors"))
    result["checkpoint_gb"] = sum(path.stat().st_size for path in shards) / 1e9
    result["largest_shard_gb"] = max(path.stat().st_size for path in shards) / 1e9
    shutil.rmtree(out, ignore_errors=True)  # of an earlier run
    result["load"] = phase("load", model)
    result["load_and_export"] = phase("load_and_export", model, out)
    files = [path.name for path in sorted(model.iterdir())]
    same, _, _ = filecmp.cmpfiles(model, out, files, shallow=False)
    result["export_identical"] = sorted(same) == files
    return result


def compare(root: Path, clip: Path) -> dict[str, Any]:
    """Compares our logits with transformers', both in bfloat16, and both with ours in float32."""
    model = root / "model"
    result: dict[str, Any] = {}
    for side in ("ours", "theirs"):
        result[side] = phase(side, model, clip, root / f"{side}.npy")
    result["float32"] = phase("ours", model, clip, root / "float32.npy", "float32")
    mine, reference, exact = (
        np.load(root / f"{side}.npy").astype(np.float64) for side in ("ours", "theirs", "float32")
    )
    result["mean_kl"] = mean_kl(reference, mine)
    result["mean_kl_from_float32"] = {
        "ours": mean_kl(exact, mine),
        "theirs": mean_kl(exact, reference),
    }
    result["max_abs_logit_diff"] = float(np.abs(mine - reference).max())
    result["logit_deviation"] = float(reference.std())
    return result


def within(result: dict[str, Any]) -> dict[str, bool]:
    """Returns for each limit whether the result keeps it."""
    load = result["load"]["peak_gb"]
    export = result["load_and_export"]["peak_gb"]
    return {
        "load": load <= LOAD * result["checkpoint_gb"],
        "export": export <= load + result["largest_shard_gb"],
        "identical": result["export_identical"],
        "kl": result["mean_kl"] <= MEAN_KL,
    }


if __name__ == "__main__":
    sys.exit(main())
