"""Starts runs as processes of this machine, as many at a time as its memory holds."""

import contextlib
import fcntl
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
from tqdm import tqdm

from sari_jax.atomic import os_errors_as_input_error
from sari_jax.errors import InputError, one_line
from sari_jax.sweep.memory import available_memory
from sari_jax.sweep.plan import Planned
from sari_jax.sweep.results import FAILED, FINISHED, STOPPED

# Another run starts once this many times the memory of the largest run is free.
HEADROOM = 1.25
# A run that a signal killed is started again this often.
RESTARTS = 3
LOOK_SECONDS = 0.1
# Measuring a run's memory walks through all processes of the machine, so it is done less often than looking.
MEASURE_SECONDS = 1.0
# Takes a run that ended, its state, and the reason of a failure.
Ended = Callable[[Planned, str, str], None]


class Launcher:
    """Starts runs and waits for them. On SIGTERM or Ctrl-C it stops the running ones and starts no more.

    Args:
        at_once: the most runs at a time.

    Attributes:
        stopping: whether it was asked to stop.
    """

    def __init__(self, at_once: int):
        self._at_once = at_once
        self._running: list[_Process] = []
        # Runs that a signal killed, which are to be started again.
        self._again: list[_Process] = []
        # The most bytes of a run that has made a step.
        self._largest = 0
        self.stopping = False

    def __call__(
        self, runs: Iterator[Planned], began: Callable[[Planned], object], ended: Ended, lock: IO
    ) -> None:
        """Runs all runs to their end.

        Args:
            runs: an iterator of runs; the next one is taken when there is room for it.
            began, ended: functions that are called when a run starts and ends.
            lock: a lock that each run inherits, so that it stays locked as long as any of them lives.

        Raises:
            InputError: `runs` raised it. The runs that it gave before have ended.
        """
        more = True
        refusal: InputError | None = None
        with self._stopped_by_signals(ended):
            while self._running or (more or self._again) and not self.stopping:
                for process in list(self._running):
                    self._look(process, ended)
                if self.stopping or not (more or self._again) or not self._room():
                    time.sleep(LOOK_SECONDS)
                elif self._again:
                    before = self._again.pop()
                    self._start(before.run, before.killed, began, lock)
                else:
                    try:
                        run = next(runs, None)
                    except InputError as error:
                        run, refusal = None, error
                    if run is None:
                        more = False
                    else:
                        self._start(run, 0, began, lock)
            for process in self._again:
                ended(process.run, STOPPED, "")
        if refusal:
            raise refusal

    def _start(
        self, run: Planned, killed: int, began: Callable[[Planned], object], lock: IO
    ) -> None:
        self._running.append(_Process(run, killed, lock))
        if self.stopping:  # since the process was started
            self._running[-1].stop()
        began(run)

    def _look(self, process: "_Process", ended: Ended) -> None:
        """Measures a process; if it has ended, reports its state or puts it aside to be started again."""
        code = process.look()
        if process.stepped:
            self._largest = max(self._largest, process.peak)
        if code is None:
            return
        self._running.remove(process)
        run = process.run
        if run.finished:
            ended(run, FINISHED, "")
        elif code == 0 or code < 0 and self.stopping:
            ended(run, STOPPED, "")
        elif code < 0 and process.killed < RESTARTS:
            process.killed += 1
            line = f"{run.name}: killed by {_signal(code)}; it is started again"
            tqdm.write(line, file=sys.stderr)
            self._again.append(process)
        else:
            reason = last_line(run.log, process.said_before) or f"exit {code}, nothing in its log"
            if code < 0:
                reason = f"killed by {_signal(code)}, and started again {RESTARTS} times before: {reason}"
            ended(run, FAILED, reason)

    def _room(self) -> bool:
        if not self._running:
            return True
        if len(self._running) >= self._at_once or not self._largest:
            return False
        # Keeps room for the running ones to grow to the size of the largest.
        promised = sum(max(0, self._largest - process.resident) for process in self._running)
        free = available_memory() - promised
        return free >= HEADROOM * self._largest

    @contextlib.contextmanager
    def _stopped_by_signals(self, ended: Ended) -> Iterator[None]:
        """Stops the runs on SIGTERM, Ctrl-C or an exception within; each run writes a checkpoint."""

        def stop(*_: object) -> None:
            self.stopping = True
            for process in self._running:
                process.stop()

        signals = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, stop) for number in signals]
        try:
            yield
        finally:
            if self._running:
                stop()
            for process in self._running:
                process.wait()
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)
            for process in list(self._running):
                self._look(process, ended)


class _Process:
    """The process of a run.

    Attributes:
        resident: the memory of it and its child processes, in bytes.
        peak: the largest `resident` that was measured.
        stepped: whether the run has made a step since it started.
        killed: the number of times a signal has killed the run.
        said_before: the number of bytes in its log that earlier starts wrote.
    """

    def __init__(self, run: Planned, killed: int, lock: IO):
        self.run = run
        self.killed = killed
        self.resident = 0
        self.peak = 0
        self.stepped = False
        self._measured = -math.inf
        self._rows: tuple[int, int] | None = None
        with run.log.open("a") as log:
            self.said_before = run.log.stat().st_size
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sari_jax.cli", *run.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[lock.fileno()],
                # A session of its own: Ctrl-C reaches the sweep alone, which passes it on as SIGTERM.
                start_new_session=True,
            )

    def look(self) -> int | None:
        """Measures the process; returns its exit code, None while it runs."""
        stepped = self.stepped
        with contextlib.suppress(OSError):
            stat = (self.run.workdir / "metrics.jsonl").stat()
            before, self._rows = self._rows, (stat.st_ino, stat.st_size)
            # A run that resumes replaces the file; a step makes it longer.
            if before and before[0] == stat.st_ino and before[1] < stat.st_size:
                self.stepped = True
        # Its memory is largest from the first step on.
        if self.stepped > stepped or time.monotonic() - self._measured > MEASURE_SECONDS:
            self._measure()
            self._measured = time.monotonic()
        return self._process.poll()

    def _measure(self) -> None:
        with contextlib.suppress(psutil.Error):
            one = psutil.Process(self._process.pid)
            family = [one, *one.children(recursive=True)]
            self.resident = sum(each.memory_info().rss for each in family)
            self.peak = max(self.peak, self.resident)

    def stop(self) -> None:
        self._process.terminate()

    def wait(self) -> None:
        self._process.wait()


def last_line(log: Path, start: int = 0) -> str:
    """Returns the last line of a run's log after byte `start`, without the prefix "sari: "."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return one_line(lines[-1].removeprefix("sari: ")) if lines else ""


@contextlib.contextmanager
def alone(out: Path) -> Iterator[IO]:
    """Locks a sweep's folder for as long as the sweep, or any run that inherits the lock, lives.

    Raises:
        InputError: another sweep holds the lock, or a run that a killed sweep left behind.
    """
    with os_errors_as_input_error(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / "lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{out}: another sweep, or a run that a killed sweep left behind, is running there; wait for its end"
            ) from error
        yield lock


def most_at_once() -> int:
    """Returns the most runs at a time: one per core, or one in all if there is an accelerator, which a run takes whole.

    A process of its own looks for accelerators, since a process that looks at one may hold it.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        words = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        # If JAX does not start at all, the first run's log says why.
        if done.stdout.strip() != "cpu":
            return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
