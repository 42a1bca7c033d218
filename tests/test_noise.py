"""Without a TPU nothing but our own lines is on standard error; with one, nothing is hidden."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sari_jax.noise import MARK, NO_TPU, has_gpu, has_tpu, keep_off

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sys/bus/pci/devices/0000:00:04.0/vendor", "0x1ae0\n"),
        ("dev/accel0", ""),
        ("dev/accel/accel3", ""),
        ("dev/vfio/0", ""),
    ],
)
def test_a_tpu_is_seen(path, text, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert has_tpu(tmp_path, {}) and not has_gpu(tmp_path)
    assert has_tpu(tmp_path, {MARK: "1"} | NO_TPU)


@pytest.mark.parametrize("path", ["sys/bus/pci/devices/0/vendor", "dev/vfio/vfio", "dev/null"])
def test_other_devices_are_no_tpu(path, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("0x10de\n")
    assert not has_tpu(tmp_path, {})


def test_the_environment_of_a_slice_is_a_tpu_and_ours_is_none(tmp_path):
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE", "TPU_NAME"):
        assert has_tpu(tmp_path, {name: "a-slice"})
    assert has_tpu(tmp_path, {"JAX_PLATFORMS": "tpu,cpu"})
    assert not has_tpu(tmp_path, NO_TPU | {MARK: "1", "JAX_PLATFORMS": "cpu"})


def test_nothing_is_hidden_with_a_tpu(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/accel0").touch()
    environ: dict[str, str] = {}
    logging.getLogger("orbax").setLevel(logging.DEBUG)
    keep_off(tmp_path, environ)
    assert environ == {} and logging.getLogger("orbax").level == logging.DEBUG


def test_with_a_gpu_xla_speaks(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    environ: dict[str, str] = {}
    keep_off(tmp_path, environ)
    assert environ[MARK] == "1" and "TF_CPP_MIN_LOG_LEVEL" not in environ


def as_users_do() -> dict[str, str]:
    """The environment without what the suite and `keep_off` put into it; of one device, not eight."""
    ours = {*NO_TPU, MARK, "JAX_PLATFORMS", "TF_CPP_MIN_LOG_LEVEL", "TPU_SKIP_MDS_QUERY"}
    ours |= {
        "XLA_FLAGS",
        "NPROC",
        "OMP_NUM_THREADS",
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_PROGRESS_BARS",
    }
    ours |= {"JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"}
    ours |= {"PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY", "GRPC_VERBOSITY"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"PYTHONPATH": str(ROOT)}


LIBRARIES = """
from sari_jax.noise import keep_off
keep_off()
import jax
assert jax.default_backend() == "cpu"
import absl.logging, logging, warnings
absl.logging.warning("of absl")
logging.getLogger("orbax.checkpoint").warning("of Orbax")
logging.getLogger("transformers.tokenization_utils").warning("of transformers")
warnings.warn("of Python")
import transformers
list(transformers.utils.logging.tqdm(range(2)))
"""
COMPILER = """
from sari_jax.noise import keep_off
keep_off()
import importlib.util
if importlib.util.find_spec("libtpu"):
    from sari_jax.scale.topology import topology
    assert topology("v5e:2x2").chips == 4
"""


@pytest.mark.skipif(
    has_tpu() or has_gpu(), reason="there is an accelerator, which may be spoken of"
)
@pytest.mark.parametrize("code", [LIBRARIES, pytest.param(COMPILER, marks=pytest.mark.tools)])
def test_libraries_say_nothing(code):
    """JAX asks libtpu for TPUs, and gives it a topology to compile for."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=as_users_do(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == done.stdout == ""


# Every line that a small demo may write to standard error.
OURS = re.compile(
    r"""
      \$\ sari\ [a-z]+\ .+                            # a command
    | \ \ (?:trained|[a-z_]+(?:/[a-z_]+)+)\ +(?:shape|\d+(?:\ x\ \d+)*)\ +(?:count|[\d,]+)
    | \ \ all\ of\ them\ +[\d,]+
    | (?:sft|grpo):\ \d+\ (?:records|programs)\ .+
    | sari:\ .+
    | fetching\ \S+\ \S+\ from\ \w+
    | \S+/scored\.jsonl:\ \d+\ records\ kept;\ left\ out:\ .+
    | held\ out\ after\ step\ \d+:\ accuracy\ .+
    | Next,\ ask\ it\ something:
    | \S*bin/sari\ ask\ .+
    """,
    re.VERBOSE,
)
DEMO = """
import dataclasses, sys
from experiments import commands, demo, two_stages
demo.SIZE = two_stages.Size(questions=16, attempts=2, held_out=4, test=6, tokens=4, rows=(8, 8))
demo.EVERY = {"sft": 2, "grpo": 2}
step, train = commands.step, two_stages.train

def small(*words, **more):
    words += {"data": ("--train", "440", "--validation", "12", "--test", "12")}.get(words[0], ())
    return step(*words, **more)

def short(*words, **settings):
    return train(*words, **settings, steps=2, batch_size=4)

def rated(out, *words):
    try:
        score(out, *words)
    except SystemExit:  # after two steps no answer is right, which is refused
        questions = two_stages.read_records(out / "unscored.jsonl")
        rated = [dataclasses.replace(question, pass_rate=0.5) for question in questions]
        two_stages.write_records(out / "scored.jsonl", rated)

score, two_stages.score = two_stages.score, rated
commands.step, two_stages.train = small, short
sys.exit(demo.main())
"""


@pytest.mark.tools
@pytest.mark.skipif(
    has_tpu() or has_gpu(), reason="there is an accelerator, which may be spoken of"
)
def test_every_line_of_the_demos_standard_error_is_ours(tmp_path):
    """All of it, smaller: corpus, model, both stages, scoring, answers, report and comparison with transformers."""
    done = subprocess.run(
        [sys.executable, "-c", DEMO, "--out", tmp_path / "demo"],
        cwd=ROOT,
        env=as_users_do(),
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told, brace, rest = done.stderr.partition("\n{\n")
    results, end, rest = rest.partition("\n}\n")
    assert json.loads(brace + results + end)["test_examples"] == 6
    lines = [line for line in re.split(r"[\r\n]+", told + "\n" + rest) if line]
    assert sum(line.startswith("$ sari ") for line in lines) >= 10
    assert [line for line in lines if not OURS.fullmatch(line)] == []
