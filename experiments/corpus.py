"""The corpus as docs/data.md makes it, at its full size, and a run over it that is killed again and again.

Builds 32,000 starter questions and every source's sample, cleans, scores, splits, orders and packs them by the
commands that a user would type; each is printed before it runs, and one that is done is not done again. Then a GRPO run
over the result is killed (SIGKILL) at random moments and resumed, each time with another number of processes that
read, and compared with one that nothing disturbed: the same questions in the same batches in the same order, and the
same parameters, bit for bit.

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


# A file's order, in windows of clips of like length; and an adaptive one over few questions, which come again.
RUNS = {
    "as_written": {"data.order": "as_written", "data.window": 4},
    "adaptive": {
        "data.order": "adaptive", "data.refresh": 4, "data.limit": 240, "data.drop_solved": False,
        "data.mix": "('*timgm6mb*=2', '*=1')", "grpo.overlap": True,
    },
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="nano after SFT, which answers in form")
    parser.add_argument("--out", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument(
        "--against", nargs="*", default=[], help="benchmark files to keep apart from"
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    made = make_corpus(args)
    told = {"corpus": made, "runs": {name: kill_and_resume(args, name) for name in RUNS}}
    (args.out / "result.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))
    same = [run["identical"] and run["kills"] == args.kills for run in told["runs"].values()]
    return 0 if all(same) else 1


def make_corpus(args: argparse.Namespace) -> dict[str, Any]:
    """What each command reported."""
    out, seed = args.out, ["--seed", args.seed]
    told: dict[str, Any] = {}

    def step(name: str, makes: str, *words: object) -> None:
        told[name] = run(out, makes, *words)

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
    return told


def run(out: Path, makes: str, *words: object) -> dict[str, Any]:
    """A command's report; of one whose result is there already, the report kept beside it."""
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
    told = json.loads(done.stdout) | {"seconds": round(time.monotonic() - begun, 1)}
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps(told, indent=2) + "\n")
    return told


def kill_and_resume(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """A run that nothing disturbs, the same run killed and resumed, and whether they are the same."""

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
    chance, deaths = random.Random(args.seed), []
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
