"""Makes stand-in clips for a benchmark without its audio. Commands can be tried with them; the scores mean nothing.

Each question gets its own noise and tones of one to ten seconds, under the file name in its row.

    python -m experiments.standin --benchmark mmau-v05.15.25 --questions mmau-test-mini-v05.15.25.json \\
        --out runs/standin
    sari eval --benchmark mmau-v05.15.25 --questions mmau-test-mini-v05.15.25.json --audio-root runs/standin \\
        --model runs/demo/grpo --max-tokens 48 --out runs/eval-standin
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from sari_jax.errors import InputError
from sari_jax.evaluate.benchmarks import BENCHMARKS, Benchmark, Row, read_rows

RATE = 16_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmark", choices=BENCHMARKS, required=True)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/standin"))
    args = parser.parse_args()
    benchmark = BENCHMARKS[args.benchmark]
    write_clips(read_rows(args.questions, benchmark), benchmark, args.out)
    return 0


def write_clips(rows: Sequence[Row], benchmark: Benchmark, out: Path) -> None:
    for number, row in enumerate(tqdm(rows, desc="clips", file=sys.stderr, disable=None)):
        path = (out / row[benchmark.audio]).resolve()
        if not path.is_relative_to(out.resolve()):
            raise InputError(
                f"row {number}: {row[benchmark.audio]!r} leads out of {out}; fix the row"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        time = np.arange(int(rng.uniform(1, 10) * RATE)) / RATE
        tones = sum(np.sin(2 * np.pi * rng.uniform(100, 4000) * time) for _ in range(3))
        waveform = 0.1 * tones + 0.02 * rng.standard_normal(len(time))
        soundfile.write(path, waveform, RATE, subtype="PCM_16")


if __name__ == "__main__":
    sys.exit(main())
