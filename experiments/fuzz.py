"""Runs `sari data clean` over damaged audio files and damaged lines: it must not crash, hang, swell or lose any.

Makes audio files (wav, flac, ogg, mp3) and JSON lines, and damages each in a way drawn at random. The command must exit
with 0, or with 2 and one line if nothing is left. It must print no traceback, use at most 2 GiB in all its processes
together, and keep or drop each input exactly once.

Prints a table and writes result.json to --out; exit 1 if any of this fails.

    python -m experiments.fuzz --sounds 2000 --lines 2000 --seed 0 --out runs/fuzz
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from experiments.damage import damaged_line, damaged_sound

# Bytes that the command and all its workers may use.
MEMORY = 2 * 2**30
# Seconds that one command may take.
PATIENCE = 1800


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sounds", type=int, default=2000)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    result = {
        "seed": args.seed,
        "sounds": fuzz_sounds(args.out, args.sounds, args.seed),
        "lines": fuzz_lines(args.out, args.lines, args.seed),
    }
    (args.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    for name in ("sounds", "lines"):
        print(table(name, result[name]))
    return 1 if result["sounds"]["faults"] or result["lines"]["faults"] else 0


def fuzz_sounds(out: Path, count: int, seed: int) -> dict[str, Any]:
    """Cleans records whose audio files are damaged."""
    folder = out / "sounds"
    generator = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    lines = []
    damages = Counter()
    for number in range(count):
        name, data, damage = damaged_sound(number, generator)
        (folder / name).write_bytes(data)
        damages[damage] += 1
        lines.append(json.dumps(record(f"s{number}", f"sounds/{name}", number)))
    return run(out, "sounds", "\n".join(lines).encode() + b"\n", count, damages)


def fuzz_lines(out: Path, count: int, seed: int) -> dict[str, Any]:
    """Cleans damaged records of whole audio files."""
    folder = out / "well"
    generator = np.random.default_rng([seed, 1])
    folder.mkdir(exist_ok=True)
    for number in range(8):
        tones = generator.uniform(-0.5, 0.5, 16_000)
        soundfile.write(folder / f"{number}.wav", tones, 16_000)
    lines = []
    damages = Counter()
    for number in range(count):
        whole = record(f"l{number}", f"well/{number % 8}.wav", number)
        line, damage = damaged_line(whole, generator)
        damages[damage] += 1
        lines.append(line.replace(b"\n", b" "))
    # An empty line is no input and is not counted.
    given = sum(bool(line.decode("utf-8", "replace").strip()) for line in lines)
    return run(out, "lines", b"\n".join(lines) + b"\n", given, damages)


def record(name: str, path: str, number: int) -> dict[str, Any]:
    return {
        "id": name,
        "audio": [{"path": path}],
        "question": f"Which of these is heard in clip {number}?",
        "choices": ["dog", "cat", f"bird {number}"],
        "answer_index": number % 3,
        "task": "sound",
        "source": "fuzz",
        "licence": "CC0-1.0",
    }


def run(out: Path, name: str, data: bytes, given: int, damages: Counter) -> dict[str, Any]:
    """Cleans the lines; returns figures, and `faults`, which should be empty."""
    (out / f"{name}.jsonl").write_bytes(data)
    corpus = out / f"{name}-clean-{int(time.time())}"
    words = [sys.executable, "-m", "sari_jax.cli", "data", "clean", "--json"]
    words += ["--data", str(out / f"{name}.jsonl"), "--out", str(corpus), "--seconds", "30"]
    started = time.monotonic()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    watch = Watch(process.pid)
    watch.start()
    faults = []
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its decoders with it
        stdout, stderr = process.communicate()
        faults.append(f"not done after {PATIENCE} s")
    watch.done.set()
    watch.join()
    log = stderr.decode("utf-8", "replace")
    report = {}
    if (corpus / "report.json").is_file():
        report = json.loads((corpus / "report.json").read_text())
    faults += _faults(process.returncode, log, report, corpus, given, watch.peak)
    return {
        "given": given,
        "exit": process.returncode,
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": round(watch.peak / 2**20),
        "kept": report.get("kept"),
        "dropped": report.get("dropped"),
        "damages": dict(damages.most_common()),
        "faults": faults,
    }


def _faults(
    code: int | None, log: str, report: dict[str, Any], corpus: Path, given: int, peak: int
) -> list[str]:
    faults = []
    if not (code == 0 or (code == 2 and not report.get("kept") and log.count("sari: ") == 1)):
        faults.append(f"exit {code}: {log[-500:]}")
    if "Traceback" in log:
        faults.append(f"a traceback: {log[-2000:]}")
    if peak > MEMORY:
        faults.append(f"{peak / 2**30:.2f} GiB of memory")
    if not report:
        return [*faults, "no report"]
    dropped = [json.loads(line) for line in (corpus / "dropped.jsonl").read_text().splitlines()]
    kept = []
    if (corpus / "records.jsonl").is_file():
        kept = [json.loads(x)["id"] for x in (corpus / "records.jsonl").read_bytes().splitlines()]
    counts = [given, report["read"], report["kept"] + sum(report["dropped"].values())]
    counts.append(len(kept) + len(dropped))
    if len(set(counts)) > 1:
        faults.append(f"given, read, accounted for, written: {counts}")
    where = Counter([*kept, *(line["where"] for line in dropped)])
    if twice := [name for name, times in where.items() if times > 1]:
        faults.append(f"accounted for twice: {twice[:5]}")
    if any(not line["reason"] for line in dropped):
        faults.append("dropped without a reason")
    return faults


class Watch(threading.Thread):
    """Measures the peak of resident memory of a process and its descendants together, from Linux's /proc."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid = pid
        self.peak = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            self.peak = max(self.peak, sum(map(_resident, _family(self.pid))))


def _family(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            found = _try(lambda entry=entry: (entry / "stat").read_text())
            if found:  # the name in brackets may hold anything
                parents[int(entry.name)] = int(found.rpartition(")")[2].split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _resident(pid: int) -> int:
    found = _try(lambda: Path(f"/proc/{pid}/statm").read_text())
    return int(found.split()[1]) * os.sysconf("SC_PAGE_SIZE") if found else 0


def _try(read: Callable[[], str]) -> str:
    """Returns what `read` returns; "" if the process is gone."""
    try:
        return read()
    except OSError:
        return ""


def table(name: str, result: dict[str, Any]) -> str:
    lines = [
        f"{name}: {result['given']} given, {result['kept']} kept, {result['seconds']} s,"
        f" {result['peak_mib']} MiB at most, exit {result['exit']}"
    ]
    lines += [f"  {count:6}  {reason}" for reason, count in (result["dropped"] or {}).items()]
    lines += [f"  FAULT: {fault}" for fault in result["faults"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
