"""Fingerprints of many clips, computed in worker processes. If a worker dies or hangs, only its clip is dropped.

Decoders are written in C; a damaged file may crash them or keep them forever (libsndfile has open reports of both). The
standard library's process pool is of no use here: it ends when a worker dies, and cannot end a worker that hangs.
"""

import dataclasses
import math
import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tqdm import tqdm

from sari_jax.audio.clips import load_clip
from sari_jax.audio.spans import SAMPLE_RATE, TooLong
from sari_jax.corpus.clean.fingerprint import Fingerprint, fingerprint
from sari_jax.data.ledger import Drop
from sari_jax.data.records import Clip
from sari_jax.errors import InputError

UNREADABLE, LONG = "sound unreadable", "sound too long"
SHORT, SILENT = "sound too short", "sound silent"
CRASHED, HUNG = "sound crashes the decoder", "sound takes too long to decode"
# Seconds. Shorter clips give a model nothing (see data/processor.py).
SHORTEST = 0.021
# A fraction of full scale: the last of 16 bits.
STILL = 2 / 32_768
# Seconds for one clip.
PATIENCE = 60.0
# Seconds in which a worker has to start.
STARTING = 300.0
# Workers, unless more are asked for: each holds some 100 MiB.
MOST_WORKERS = 32
# Bytes that a worker may take beside what it has when it starts.
MEMORY = 2 * 2**30
# The same for each sample of the longest clip: several copies, some of them in double precision.
PER_SAMPLE = 64
FAULT = "fault"


@dataclasses.dataclass
class Worker:
    """A worker process.

    Attributes:
        task: the index of the clip that it decodes.
        ready: whether it has returned a result.
        deadline: the time by which it must answer.
    """

    process: multiprocessing.process.BaseProcess
    line: Connection
    task: int | None = None
    ready: bool = False
    deadline: float = math.inf


def fingerprint_clips(
    clips: Sequence[Clip],
    *,
    longest: float,
    workers: int = 0,
    patience: float = PATIENCE,
    description: str = "sounds",
) -> list[Fingerprint | Drop]:
    """Returns for each clip its fingerprint, or the Drop that says why there is none.

    Args:
        longest: the length of the longest clip in seconds.
        workers: the number of processes; 0 is one for each core of this process, MOST_WORKERS at most.
        patience: the limit in seconds for one clip.
        description: the label of the progress bar.

    Raises:
        RuntimeError: no worker starts, or a worker met an error that is a bug of this program and not the file's.
    """
    found: list[Fingerprint | Drop | None] = [None] * len(clips)
    todo = list(range(len(clips)))[::-1]
    running: list[Worker] = []
    most = min(workers or min(len(os.sched_getaffinity(0)), MOST_WORKERS), len(clips))
    context = multiprocessing.get_context("spawn")
    failures = 0
    try:
        with tqdm(total=len(clips), desc=description, disable=None) as bar:
            while todo or any(worker.task is not None for worker in running):
                while len(running) < min(most, len(running) + len(todo)):
                    running.append(_start(context, longest))
                for worker in _due(running):
                    lost = _attend(worker, clips, todo, found, bar, patience)
                    if lost:
                        running.remove(worker)
                        failures = 0 if worker.ready else failures + 1
                        if failures > 3:
                            raise RuntimeError(f"processes that decode sounds do not start: {lost}")
    finally:
        for worker in running:
            worker.process.kill()
            worker.line.close()
    return [result for result in found if result is not None]


def _start(context: multiprocessing.context.SpawnContext, longest: float) -> Worker:
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, longest), daemon=True)
    process.start()
    # Otherwise the worker's death would not end the connection.
    there.close()
    return Worker(process, here, deadline=time.monotonic() + STARTING)


def _due(running: list[Worker]) -> list[Worker]:
    """Waits for and returns the workers that have sent a result, have died or have run out of time."""
    first = min(worker.deadline for worker in running)
    lines = wait([w.line for w in running], timeout=max(0.0, min(first - time.monotonic(), 10.0)))
    now = time.monotonic()
    return [worker for worker in running if worker.line in lines or worker.deadline <= now]


def _attend(
    worker: Worker,
    clips: Sequence[Clip],
    todo: list[int],
    found: list[Fingerprint | Drop | None],
    bar: tqdm,
    patience: float,
) -> str:
    """Takes a worker's result and hands it the next clip; returns why the worker is lost, or "".

    Raises:
        RuntimeError: the worker met an error that is not the file's.
    """
    lost = ""
    result = None
    if worker.line.poll():
        try:
            result = worker.line.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            lost = _lost(worker, CRASHED)
    else:
        lost = _lost(worker, HUNG)
    if worker.task is not None:
        path = clips[worker.task].path
        if lost:
            code = worker.process.exitcode
            result = lost, f"{path}: the process that read it ended with {code}; leave it out"
        if isinstance(result, tuple) and result[0] == FAULT:
            raise RuntimeError(f"{path}: an error that is not the file's:\n{result[1]}")
        if isinstance(result, tuple):
            reason, detail = result
            result = Drop(reason, detail)
        found[worker.task] = result
        bar.update()
        worker.ready = True
    worker.task = None
    worker.deadline = math.inf
    if todo and not lost:
        task = todo.pop()
        try:
            worker.line.send(clips[task])
            worker.task = task
            worker.deadline = time.monotonic() + patience
        except OSError:  # it died while it had nothing to do: another worker gets the clip
            todo.append(task)
            lost = _lost(worker, CRASHED)
    return lost


def _lost(worker: Worker, why: str) -> str:
    worker.process.kill()
    worker.process.join()
    worker.line.close()
    return why


def _work(line: Connection, longest: float) -> None:
    """Runs in a worker: reports that it has started, then answers each clip."""
    # libmpg123 writes a line for each damaged frame to stderr.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _limit_memory(longest)
    line.send("ready")
    while True:
        try:
            clip = line.recv()
        except EOFError:
            return
        try:
            line.send(fingerprint_clip(clip, longest))
        except Drop as drop:
            line.send((drop.reason, str(drop)))
        except Exception:  # the parent raises it: this process has no stderr
            line.send((FAULT, traceback.format_exc()))


def _limit_memory(longest: float) -> None:
    """Limits this process's memory, so that a bad file ends in a MemoryError and the machine stays usable."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY + int(longest * SAMPLE_RATE) * PER_SAMPLE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def fingerprint_clip(clip: Clip, longest: float) -> Fingerprint:
    """Decodes a clip of at most `longest` seconds and returns its fingerprint.

    Raises:
        Drop: the clip cannot be used.
    """
    try:
        waveform = load_clip(clip.path, clip.start, clip.end, longest=longest)
        if len(waveform) <= SHORTEST * SAMPLE_RATE:
            seconds = len(waveform) / SAMPLE_RATE
            raise Drop(SHORT, f"{clip.path}: {seconds:.4f} s is under {SHORTEST} s")
        found = fingerprint(waveform)
    except TooLong as error:
        raise Drop(LONG, str(error)) from error
    except InputError as error:
        raise Drop(UNREADABLE, str(error)) from error
    except MemoryError as error:
        raise Drop(UNREADABLE, f"{clip.path}: takes more memory than a worker may use") from error
    if found.peak < STILL:
        raise Drop(SILENT, f"{clip.path}: no sample is louder than {found.peak:.1e} of full scale")
    return found
