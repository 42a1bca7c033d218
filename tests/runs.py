"""Runs as users start them: real processes, alone or as the hosts of one run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from experiments.chaos import environments

ROOT = Path(__file__).parent.parent
STEPS = 6
# Rewards of which one differs within a group whoever answers: without it an untrained model would learn nothing.
REWARDS = {
    "grpo.rewards": ("accuracy=1", "format=1", "vowels=1"),
    "grpo.reward_file": str(ROOT / "tests" / "own_reward.py"),
}


def command(stage: str, model: Path, data: Path, workdir: Path, *more: str) -> list[str]:
    changes = {
        "model.path": model,
        "data.train": data,
        "steps": STEPS,
        "batch_size": 4,
        "checkpoint.every": 2,
        "samples_every": 2,
    }
    if stage == "grpo":
        changes |= {"grpo.num_completions": 2, "grpo.max_tokens": 12} | REWARDS
        if model.name == "small":
            # Its runs decode a batch while they score the last one, and draw the next by what they learnt.
            changes |= {"grpo.overlap": True, "data.order": "adaptive", "data.refresh": 2}
            # The second batch of five questions is full of the first ones again.
            changes |= {"held_out.data": data, "held_out.every": 4, "held_out.limit": 5}
            changes |= {"held_out.max_tokens": 12}
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    config = ROOT / f"configs/{stage}_nano.py"
    return sari("train", "--config", config, "--workdir", workdir, *overrides, *more)


def settings(stage: str, model: Path, data: Path, **changes) -> Any:
    """A short run for this process and its eight devices, whose every update moves the parameters.

    Runs with these shapes share their programs.
    """
    from sari_jax.train.config import defaults, freeze

    config = defaults()
    config.update_from_flattened_dict(
        {
            "stage": stage,
            "steps": 3,
            "batch_size": 8,
            "samples_every": 99,
            "model.path": str(model),
            "data.train": str(data),
            "data.style": "direct",
            "data.drop_unsolved": False,
            "data.shapes.prompt_tokens": (192,),
            "data.shapes.answer_tokens": (16,),
            "data.shapes.audio_seconds": (4.0,),
            "data.shapes.audios": (1,),
            "grpo.num_completions": 2,
            "grpo.max_tokens": 8,
            "optimizer.learning_rate": 0.01,
            **REWARDS,
            **changes,
        }
    )
    return freeze(config)


def sari(*words: object) -> list[str]:
    return [sys.executable, "-m", "sari_jax.cli", *map(str, words)]


def environment(devices: int = 1) -> dict[str, str]:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    # Each run compiles what the one before it did: small programs too come from the cache.
    kept = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "without_torch")])
    return os.environ | kept | {"XLA_FLAGS": flags, "PYTHONPATH": path}


def finish(words: list[str], devices: int = 1) -> subprocess.CompletedProcess:
    environ = environment(devices)
    return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=900)


def rows(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def trained(workdir: Path) -> dict:
    from sari_jax.train.loop import trained_params
    from sari_jax.train.workdir import read_run

    _, params = trained_params(read_run(workdir), workdir)
    return {
        path: np.asarray(array)
        for path, array in traverse_util.flatten_dict(params, sep="/").items()
    }


def untrained(workdir: Path) -> dict:
    """The parameters that a run began with."""
    from sari_jax.hf.config import read_config
    from sari_jax.hf.load import load_params

    model = json.loads((workdir / "config.json").read_text())["model"]["path"]
    params = load_params(model, read_config(model), dtype="float32")
    return {
        path: np.asarray(array)
        for path, array in traverse_util.flatten_dict(params, sep="/").items()
    }


def assert_moved(workdir: Path) -> None:
    """Every update at a rate above 0 moved the parameters, and they end elsewhere than they began."""
    found = [row for row in rows(workdir) if row["learning_rate"] > 0]
    assert found and all(row["update_norm"] > 0 for row in found)
    start = untrained(workdir)
    for path, array in trained(workdir).items():
        assert (array != start[path]).any(), f"{path} never moved"


def assert_same_parameters(one: Path, other: Path) -> None:
    before, after = trained(one), trained(other)
    assert before.keys() == after.keys()
    for path, array in before.items():
        np.testing.assert_array_equal(array, after[path], err_msg=path)


def rows_so_far(workdir: Path) -> list[dict]:
    try:
        return rows(workdir)
    except ValueError:  # a line that is being written
        return []


def killed(words: list[str], workdir: Path, after: int) -> None:
    """Starts a command and kills it for good once so many steps stand in its metrics and a checkpoint is whole."""
    process = subprocess.Popen(
        words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    # A checkpoint is written in the background. It has its name once it is whole.
    def ready() -> bool:
        saved = any(folder.name.isdigit() for folder in (workdir / "checkpoints").glob("*"))
        return saved and len(rows_so_far(workdir)) >= after

    deadline = time.monotonic() + 600
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


def assert_same_end_once_killed(words: list[str], workdir: Path, undisturbed: Path) -> None:
    """A command that is killed after three steps and given again ends with the same bits as an undisturbed run."""
    killed(words, workdir, after=3)
    done = finish(words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resumed after step" in done.stderr
    assert untimed(workdir) == untimed(undisturbed)
    assert_same_parameters(undisturbed, workdir)
    for name in ("samples.jsonl", "questions.jsonl"):
        assert (workdir / name).read_text() == (undisturbed / name).read_text()


def untimed(workdir: Path) -> list[dict]:
    """The rows without what no two runs have in common."""
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(workdir)]


def start_hosts(
    *words: list[str],
    devices: int = 4,
    heartbeat: int = 20,
    count: int = 2,
    changes: tuple[dict[str, str], ...] = (),
) -> list[subprocess.Popen]:
    """A command as each of `count` hosts of one run.

    Args:
        words: of each host; of all, if there is one.
        changes: of each host's environment, if there are any.
    """
    return [
        subprocess.Popen(
            words[host % len(words)],
            env=environment(devices) | environ | (changes[host] if changes else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host, environ in enumerate(environments(heartbeat, count))
    ]


def end_hosts(processes: list[subprocess.Popen]) -> list[subprocess.CompletedProcess]:
    """Waits for all of them."""
    told = [process.communicate(timeout=900) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(processes, told, strict=True)
    ]
