"""Makes the corpus of docs/data.md at its full size, and kills and resumes a run over it.

Builds 32,000 starter questions and every source's sample, then cleans, scores, splits, orders and packs them with the
commands that a user would type. Each command is printed before it runs; a finished one is not repeated. Then a GRPO run
over the result is killed (SIGKILL) at random moments and resumed, each time with another number of reading processes.
It must equal an undisturbed run: the same questions in the same batches in the same order, and the same parameters, bit
for bit.

    python -m experiments.corpus --model runs/demo/sft --out runs/corpus
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.chaos import TRAIN, last_step, same_end
from experiments.samples import write_samples
from sari_jax.scale.reading import wait_share

SARI = [sys.executable, "-m", "sari_jax.cli"]
QUESTIONS = 32_000
ANSWERING = ["--attempts", "16", "--max-tokens", "48", "--rows", "64", "--style", "structured"]


# Run -> settings. One keeps the file's order, in windows of clips of similar length. The other has an adaptive order
# over few questions, which are asked repeatedly.
RUNS = {
    "as_written": {"data.order": "as_written", "data.window": 4},
    "adaptive": {
        "data.order": "adaptive", "data.refresh": 4, "data.limit": 240, "data.drop_solved": False,
        "data.mix": "('*timgm6mb*=2', '*=1')", "grpo.overlap": True,
    },
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, help="nano after SFT, which answers in the right form"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument(
        "--against",
        nargs="*",
        default=[],
        help="benchmark files that the corpus must not overlap with",
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = make_corpus(args)
    runs = {name: kill_and_resume(args, name) for name in RUNS}
    text = json.dumps({"corpus": corpus, "runs": runs}, indent=2)
    (args.out / "result.json").write_text(text + "\n")
    print(text)
    same = [run["identical"] and run["kills"] == args.kills for run in runs.values()]
    return 0 if all(same) else 1


def make_corpus(args: argparse.Namespace) -> dict[str, Any]:
    """Makes the corpus; returns each command's report."""
    out = args.out
    seed = ["--seed", args.seed]
    reports: dict[str, Any] = {}

    def step(name: str, makes: str, *words: object) -> None:
        reports[name] = run(out, makes, *words)

    sizes = ["--train", args.questions, "--validation", 0, "--test", 600]
    step("build starter", "starter", "data", "build", "starter", *sizes, *seed)
    samples = out / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    for name, (file, root) in write_samples(samples).items():
        words = ["--input", file, "--audio-root", root, *seed]
        step(f"build {name}", f"sources/{name}", "data", "build", name, *words)
    files = [out / "starter/train.jsonl", *sorted(out.glob("sources/*/records.jsonl"))]
    against = ["--against", *args.against] if args.against else []
    step("clean", "clean", "data", "clean", "--data", *files, *against, *seed)
    scoring = ["--model", args.model, "--data", out / "clean/records.jsonl", *ANSWERING, *seed]
    step("score", "scored.jsonl", "score", *scoring)
    step("split", "split", "data", "split", "--data", out / "scored.jsonl", *seed)
    order = ["--data", out / "split/rl.jsonl", "--order", "easy_to_hard", *seed]
    step("order", "ordered.jsonl", "data", "order", *order)
    step("pack", "packed", "data", "pack", "--data", out / "ordered.jsonl")
    return reports


def run(out: Path, makes: str, *words: object) -> dict[str, Any]:
    """Runs a command and returns its report, or the kept report if its result exists already."""
    report = out / "reports" / f"{makes.replace('/', '-')}.json"
    if (out / makes).exists() and report.exists():
        return json.loads(report.read_text())
    command = [*map(str, words), "--out", str(out / makes)]
    print("$ sari " + " ".join(command), file=sys.stderr, flush=True)
    begun = time.monotonic()
    (out / makes).parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([*SARI, *command, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    result = json.loads(done.stdout) | {"seconds": round(time.monotonic() - begun, 1)}
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(result, indent=2) + "\n")
    return result


def kill_and_resume(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Makes a run undisturbed, and again killed and resumed; returns whether they are the same."""

    def words(workdir: Path, workers: int) -> list[str]:
        changes = {
            "model.path": args.model, "data.train": args.out / "packed/records.jsonl",
            "steps": args.steps, "checkpoint.every": 3, "seed": args.seed, "data.workers": workers,
        } | RUNS[name]  # fmt: skip
        overrides = [f"--config.{key}={value}" for key, value in changes.items()]
        return [*TRAIN, "--config", "configs/grpo_nano.py", "--workdir", str(workdir), *overrides]

    whole, killed = (args.out / f"run-{name}-{end}" for end in ("undisturbed", "killed"))
    for workdir in (whole, killed):
        shutil.rmtree(workdir, ignore_errors=True)
    chance = random.Random(args.seed)
    deaths = []
    subprocess.run(words(whole, 0), check=True, stdout=subprocess.DEVNULL)
    reached = sorted(chance.sample(range(1, args.steps - 1), args.kills))
    for kill, wanted in enumerate(reached):
        process = subprocess.Popen(words(killed, kill % 3), stdout=subprocess.DEVNULL)
        while process.poll() is None and last_step(killed) < wanted:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            deaths.append({"at_step": last_step(killed), "workers": kill % 3})
    subprocess.run(words(killed, 1), check=True, stdout=subprocess.DEVNULL)
    lines = [(run / "questions.jsonl").read_text().splitlines() for run in (whole, killed)]
    return {
        "steps": args.steps,
        "kills": len(deaths),
        "deaths": deaths,
        "batches_alike": sum(one == other for one, other in zip(*lines, strict=True)),
        "identical": same_end(whole, killed),
        "wait_share": wait_share(str(whole))["share"],
    }


if __name__ == "__main__":
    sys.exit(main())
