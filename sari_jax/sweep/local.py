"""Runs as processes of this machine, as many at a time as its memory holds."""

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

HEADROOM = 1.25  # of the largest run seen: what must be free before another starts
RESTARTS = 3  # of a run that a signal killed
LOOK_SECONDS = 0.1
MEASURE_SECONDS = 1.0  # the processes of a whole machine are walked for each measure
Ended = Callable[[Planned, str, str], None]  # a run, its state and the reason of a failure


class Launcher:
    """Starts runs and waits for them; told to stop, it passes that on and starts no more.

    Args:
        at_once: runs at a time, at most.
    """

    def __init__(self, at_once: int):
        self._at_once = at_once
        self._running: list[_Process] = []
        self._largest = 0  # bytes of a run that has made a step
        self.stopping = False

    def __call__(
        self, runs: Iterator[Planned], began: Callable[[Planned], object], ended: Ended, lock: IO
    ) -> None:
        """Until all have ended.

        Args:
            runs: asked for the next one when there is room for it.
            lock: open in every run too, so that it stays locked as long as any of them lives.

        Raises:
            InputError: `runs` gives no further ones for that reason; those that it gave have ended.
        """
        again: list[_Process] = []
        more, refusal = True, None
        with self._told_to_stop(ended):
            while self._running or (more or again) and not self.stopping:
                for process in list(self._running):
                    self._look(process, again, ended)
                if not self.stopping and (more or again) and self._room():
                    if again:
                        before = again.pop()
                        run, killed = before.run, before.killed
                    else:
                        run, killed = None, 0
                        try:
                            run = next(runs, None)
                        except InputError as error:
                            refusal = error
                    if run is None:
                        more = False
                    else:
                        self._running.append(_Process(run, killed, lock))
                        if self.stopping:  # told so while it was started
                            self._running[-1].stop()
                        began(run)
                    continue
                time.sleep(LOOK_SECONDS)
            for process in again:
                ended(process.run, STOPPED, "")
        if refusal:
            raise refusal

    def _look(self, process: "_Process", again: list["_Process"], ended: Ended) -> None:
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
            _tell(f"{run.name}: killed by {_signal(code)}; it is started again")
            again.append(process)
        else:
            reason = last_words(run.log, process.said_before) or f"exit {code}, without a word"
            if code < 0:
                reason = f"killed by {_signal(code)}, and {RESTARTS} times before: {reason}"
            ended(run, FAILED, reason)

    def _room(self) -> bool:
        if not self._running:
            return True
        if len(self._running) >= self._at_once or not self._largest:
            return False
        # What runs has room to grow to the size of the others.
        promised = sum(max(0, self._largest - process.resident) for process in self._running)
        free = available_memory() - promised
        return free >= HEADROOM * self._largest

    @contextlib.contextmanager
    def _told_to_stop(self, ended: Ended) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the runs, each of which writes a checkpoint; so does whatever goes wrong here."""

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
                self._look(process, [], ended)


class _Process:
    """A run under way.

    Attributes:
        resident, peak: bytes that it and its own processes hold, and the most that was seen.
        stepped: whether it was seen to make a step.
        killed: how often a signal has killed it.
        said_before: bytes of its log that earlier starts wrote.
    """

    def __init__(self, run: Planned, killed: int, lock: IO):
        self.run, self.killed = run, killed
        self.resident = self.peak = 0
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
                # Ctrl-C is for the sweep, which passes it on as SIGTERM.
                start_new_session=True,
            )

    def look(self) -> int | None:
        """Measures it; its exit code once it has ended."""
        stepped = self.stepped
        with contextlib.suppress(OSError):
            stat = (self.run.workdir / "metrics.jsonl").stat()
            before, self._rows = self._rows, (stat.st_ino, stat.st_size)
            # A run that resumes puts another file in the place of the old one; a step makes it longer.
            if before and before[0] == stat.st_ino and before[1] < stat.st_size:
                self.stepped = True
        # A first step is when it has grown to its size.
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


def last_words(log: Path, start: int = 0) -> str:
    """The last line of a run's log, of what stands there from that byte on."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return one_line(lines[-1].removeprefix("sari: ")) if lines else ""


@contextlib.contextmanager
def alone(out: Path) -> Iterator[IO]:
    """A lock on a sweep's folder, for as long as it, or any run that is given the lock, lives.

    Raises:
        InputError: another sweep, or a run that one left behind, holds it.
    """
    with os_errors_as_input_error(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / "lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{out}: another sweep, or a run that a killed one left behind, is under way there; wait for it"
            ) from error
        yield lock


def most_at_once() -> int:
    """Runs at a time: as many as cores, or one where there is an accelerator, which a run takes whole.

    Another process looks: whoever looks at an accelerator may hold it.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        asked = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
        heard = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        # Where JAX does not start at all, the first run tells why.
        if heard.stdout.strip() != "cpu":
            return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _tell(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
