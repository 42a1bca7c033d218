"""`make smol`: a small language model learns to understand audio and to reason in sections, on one small machine.

The model is SmolLM2-135M behind Whisper-tiny's encoder, with a new projector between them. Adapters are trained by SFT
on structured chains, then by GRPO on other questions from easy to hard. It is tested on the starter corpus's test part,
whose soundfonts, voices and recordings are not in its training data. The settings of
configs/{sft,grpo}_smol.py are ours.

Every step is a command that a user could type; the same command goes on where it stopped. It leaves summary.json,
curves.png, samples.md, report.html, and `grpo`, the trained model as a Hugging Face directory.

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

# As many questions as an arm of the ablation has.
SIZE = SIZES["smol"]
# Steps between evaluations.
EVERY = {"sft": 30, "grpo": SIZE.every}
# Questions in samples.md.
SHOWN = 6


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
    """Returns each model's answers to the same questions as Markdown; each answer is a code block, shown as it is."""
    answers = {stage: read_json(out / f"eval-{stage}/predictions.json") for stage in stages}
    lines = []
    for place, record in enumerate(read_records(out / "test.jsonl")[:SHOWN]):
        right = record.choices[record.answer_index]
        lines += [f"{record.question} ({', '.join(record.choices)}; right: {right})", ""]
        for stage in stages:
            text = " ".join(str(answers[stage][place]["completion"]).split())
            lines += [f"    {stage}: {text}"]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
