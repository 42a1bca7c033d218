"""Damaged sounds and damaged lines through the real command: nothing crashes, hangs, swells or is lost.

Makes sounds (wav, flac, ogg, mp3) and JSON lines, damages each in a way drawn at random, runs `sari data clean` over
them as a user would, and holds it to: exit 0, or 2 with one line where nothing is left; no traceback; at most 2 GiB in
all its processes together; as many inputs kept and dropped as were given, each once.

Prints a table and writes result.json to --out; exit 1 if anything of this fails.

    python -m experiments.fuzz --sounds 2000 --lines 2000 --seed 0 --out runs/fuzz
"""

import argparse
import io
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

MEMORY = 2 * 2**30  # bytes, of the command and all its workers
PATIENCE = 1800  # seconds for one command


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
    """Records of which each names a damaged sound."""
    folder, generator = out / "sounds", np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    lines, damages = [], Counter()
    for number in range(count):
        name, data, damage = damaged_sound(number, generator)
        (folder / name).write_bytes(data)
        damages[damage] += 1
        lines.append(json.dumps(record(f"s{number}", f"sounds/{name}", number)))
    return run(out, "sounds", "\n".join(lines).encode() + b"\n", count, damages)


def fuzz_lines(out: Path, count: int, seed: int) -> dict[str, Any]:
    """Damaged records of sounds that are well."""
    folder, generator = out / "well", np.random.default_rng([seed, 1])
    folder.mkdir(exist_ok=True)
    for number in range(8):
        tones = generator.uniform(-0.5, 0.5, 16_000)
        soundfile.write(folder / f"{number}.wav", tones, 16_000)
    lines, damages = [], Counter()
    for number in range(count):
        whole = record(f"l{number}", f"well/{number % 8}.wav", number)
        line, damage = damaged_line(whole, generator)
        damages[damage] += 1
        lines.append(line.replace(b"\n", b" "))
    # A line that was emptied is no input: it is counted nowhere.
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
    """Cleans the lines; what came of it, and what of that must not be."""
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
    told = stderr.decode("utf-8", "replace")
    report = {}
    if (corpus / "report.json").is_file():
        report = json.loads((corpus / "report.json").read_text())
    faults += _faults(process.returncode, told, report, corpus, given, watch.peak)
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
    code: int | None, told: str, report: dict[str, Any], corpus: Path, given: int, peak: int
) -> list[str]:
    faults = []
    if not (code == 0 or (code == 2 and not report.get("kept") and told.count("sari: ") == 1)):
        faults.append(f"exit {code}: {told[-500:]}")
    if "Traceback" in told:
        faults.append(f"a traceback: {told[-2000:]}")
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
    """The most memory that a process and its descendants hold at once (resident, Linux's /proc)."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.peak, self.done = pid, 0, threading.Event()

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
    """What is read of a process that may be gone."""
    try:
        return read()
    except OSError:
        return ""


def table(name: str, result: dict[str, Any]) -> str:
    told = io.StringIO()
    print(
        f"{name}: {result['given']} given, {result['kept']} kept, {result['seconds']} s,"
        f" {result['peak_mib']} MiB at most, exit {result['exit']}",
        file=told,
    )
    for reason, count in (result["dropped"] or {}).items():
        print(f"  {count:6}  {reason}", file=told)
    for fault in result["faults"]:
        print(f"  FAULT: {fault}", file=told)
    return told.getvalue()


if __name__ == "__main__":
    sys.exit(main())
