"""`make smol`: a real small language model learns to hear and to reason in sections, on one small machine.

SmolLM2-135M behind Whisper-tiny's encoder, with a new projector between them: SFT on structured chains, then GRPO on
other questions from easy to hard, both by adapters. It answers questions of the starter corpus's test part, whose
soundfonts, voices and recordings it has not heard. Settings are those of configs/{sft,grpo}_smol.py: ours.

Every step is a command that a user could type; the same command goes on where it broke off. What ends up there:
summary.json, curves.png, samples.md, report.html, and `grpo`, the trained model as a Hugging Face directory.

    python -m experiments.smol [--seed N] [--out runs/smol]
"""

import argparse
import sys
from pathlib import Path

from experiments.commands import read_json
from experiments.sari_ablation import SIZES
from experiments.two_stages import STAGES, two_stages, write_summary
from sari_jax.atomic import write_text
from sari_jax.data.records import read_records

SIZE = SIZES["smol"]  # as many questions as an arm of the ablation has
EVERY = {"sft": 30, "grpo": SIZE.every}  # steps between examinations
SHOWN = 6  # questions in samples.md


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/smol"))
    args = parser.parse_args()
    summary = two_stages(args.out, "smol", args.seed, SIZE.each, EVERY)
    write_text(args.out / "samples.md", samples(args.out, STAGES))
    write_summary(args.out, summary)
    return 0


def samples(out: Path, stages: tuple[str, ...]) -> str:
    """What each model says to the same questions, as Markdown; texts stand in code blocks as they are."""
    told = {stage: read_json(out / f"eval-{stage}/predictions.json") for stage in stages}
    lines = []
    for place, record in enumerate(read_records(out / "test.jsonl")[:SHOWN]):
        right = record.choices[record.answer_index]
        lines += [f"{record.question} ({', '.join(record.choices)}; right: {right})", ""]
        for stage in stages:
            said = " ".join(str(told[stage][place]["completion"]).split())
            lines += [f"    {stage}: {said}"]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
