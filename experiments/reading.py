"""Measures how fast ten-second clips are read, as loose files and from shards.

Joins clips of a corpus to ten seconds and packs them. Prints the result of `sari data bench` for loose files and for
shards, with threads alone and with worker processes.

    python -m experiments.reading --data runs/demo/starter/train.jsonl --model runs/demo/base --out runs/reading
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from sari_jax.audio.clips import load_clip
from sari_jax.data.records import Clip, read_records, write_records

SARI = [sys.executable, "-m", "sari_jax.cli", "data"]
RATE = 16_000
SECONDS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--clips", type=int, default=800)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/reading"))
    args = parser.parse_args()
    loose = args.out / "loose.jsonl"
    join(args, loose)
    packed = args.out / "packed"
    if not packed.exists():
        subprocess.run([*SARI, "pack", "--data", str(loose), "--out", str(packed)], check=True)
    result = {}
    for name, data in (("loose", loose), ("packed", packed / "records.jsonl")):
        words = ["bench", "--data", str(data), "--model", args.model, "--json"]
        words += ["--batches", str(args.batches), "--workers", "0", "1", "2"]
        done = subprocess.run([*SARI, *words], check=True, stdout=subprocess.PIPE, text=True)
        result[name] = json.loads(done.stdout)
    (args.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


def join(args: argparse.Namespace, out: Path) -> None:
    """Writes records of ten-second clips, each of which joins several clips of the corpus."""
    records = read_records(args.data)
    rng = np.random.default_rng(0)
    folder = args.out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    joined = []
    for number in range(args.clips):
        parts = []
        size = 0
        while size < SECONDS * RATE:
            record = records[int(rng.integers(len(records)))]
            parts.append(load_clip(record.audio[0].path))
            size += len(parts[-1])
        path = folder / f"{number:05d}.flac"
        samples = np.concatenate(parts)[: SECONDS * RATE]
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        record = dataclasses.replace(
            record, id=f"joined-{number}", audio=(Clip(str(path.absolute())),)
        )
        joined.append(record)
    write_records(out, joined)


if __name__ == "__main__":
    sys.exit(main())
