"""Sounds to fingerprints in many processes, of which any may die or hang: its sound is dropped, all else goes on.

Decoders are C; a damaged file may crash them or keep them forever (libsndfile has open reports of both). A process pool
of the standard library ends when a worker dies, and cannot end one that hangs.
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
from sari_jax.audio.spans import TooLong
from sari_jax.corpus.clean.fingerprint import Fingerprint, fingerprint
from sari_jax.data.ledger import Drop
from sari_jax.data.records import Clip
from sari_jax.errors import InputError

UNREADABLE, LONG = "sound unreadable", "sound too long"
SHORT, SILENT = "sound too short", "sound silent"
CRASHED, HUNG = "sound crashes the decoder", "sound takes too long to decode"
SHORTEST = 0.021  # seconds; shorter clips give a model nothing (see data/processor.py)
STILL = 2 / 32_768  # of full scale: the last bit of 16
PATIENCE = 60.0  # seconds for one sound
STARTING = 300.0  # seconds in which a worker has to be there
MOST_WORKERS = 32  # unless more are asked for: each holds some 100 MiB
MEMORY = 2 * 2**30  # bytes that a worker may take beside what it has when it starts,
PER_SAMPLE = (
    64  # and for each sample of the longest clip: several copies, some of them in double precision
)
FAULT = "fault"


@dataclasses.dataclass
class Worker:
    """A process, what it works on and until when it may; `ready` once it has taken work."""

    process: multiprocessing.process.BaseProcess
    line: Connection
    task: int | None = None
    ready: bool = False
    deadline: float = math.inf


def listen(
    clips: Sequence[Clip],
    *,
    longest: float,
    workers: int = 0,
    patience: float = PATIENCE,
    what: str = "sounds",
) -> list[Fingerprint | Drop]:
    """Of each clip its fingerprint, or why there is none.

    Args:
        longest: seconds.
        workers: processes, 0 for as many as there are cores for this one, MOST_WORKERS at most.
        patience: seconds for one clip.

    Raises:
        RuntimeError: a worker met an error of this program's, not of a file's; or none starts.
    """
    found: list[Fingerprint | Drop | None] = [None] * len(clips)
    todo, running = list(range(len(clips)))[::-1], []
    most = min(workers or min(len(os.sched_getaffinity(0)), MOST_WORKERS), len(clips))
    context, failures = multiprocessing.get_context("spawn"), 0
    try:
        with tqdm(total=len(clips), desc=what, disable=None) as bar:
            while todo or any(worker.task is not None for worker in running):
                while len(running) < min(most, len(running) + len(todo)):
                    running.append(_start(context, longest))
                for worker in _heard_of(running):
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
    there.close()  # else its death would not end the connection
    return Worker(process, here, deadline=time.monotonic() + STARTING)


def _heard_of(running: list[Worker]) -> list[Worker]:
    """Workers that have said something, have died or have run out of time."""
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
    """Takes a worker's result and hands it the next clip; the reason, if it is lost."""
    lost, result = "", None
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
        found[worker.task] = Drop(*result) if isinstance(result, tuple) else result
        bar.update()
        worker.ready = True
    worker.task, worker.deadline = None, math.inf
    if todo and not lost:
        task = todo.pop()
        try:
            worker.line.send(clips[task])
            worker.task, worker.deadline = task, time.monotonic() + patience
        except OSError:  # it died with nothing to do: the clip is another's
            todo.append(task)
            lost = _lost(worker, CRASHED)
    return lost


def _lost(worker: Worker, why: str) -> str:
    worker.process.kill()
    worker.process.join()
    worker.line.close()
    return why


def _work(line: Connection, longest: float) -> None:
    """A worker: says that it is there, then answers each clip."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 writes a line for each damaged frame
    _limit_memory(longest)
    line.send("ready")
    while True:
        try:
            clip = line.recv()
        except EOFError:
            return
        try:
            line.send(hear(clip, longest))
        except Drop as drop:
            line.send((drop.reason, str(drop)))
        except Exception:  # told by who started this process, whose own stderr is kept
            line.send((FAULT, traceback.format_exc()))


def _limit_memory(longest: float) -> None:
    """More than a worker needs is not given to it: it gets a MemoryError, and the machine lives on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY + int(longest * 16_000) * PER_SAMPLE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def hear(clip: Clip, longest: float) -> Fingerprint:
    """A clip's fingerprint.

    Raises:
        Drop: why it cannot be used.
    """
    try:
        waveform = load_clip(clip.path, clip.start, clip.end, longest=longest)
        if len(waveform) <= SHORTEST * 16_000:
            seconds = len(waveform) / 16_000
            raise Drop(SHORT, f"{clip.path}: {seconds:.4f} s is under {SHORTEST} s")
        heard = fingerprint(waveform)
    except TooLong as error:
        raise Drop(LONG, str(error)) from error
    except InputError as error:
        raise Drop(UNREADABLE, str(error)) from error
    except MemoryError as error:
        raise Drop(UNREADABLE, f"{clip.path}: takes more memory than there is") from error
    if heard.peak < STILL:
        raise Drop(SILENT, f"{clip.path}: no sample is louder than {heard.peak:.1e} of full scale")
    return heard
