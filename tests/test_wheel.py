"""The wheel in an empty environment, away from any checkout, with the core requirements and no extra."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sari_jax.errors import install

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parent.parent
OF_EXTRAS = ("espeakng_loader", "gguf", "librosa", "matplotlib", "openai", "optuna", "plotly")
OF_EXTRAS += ("rapidfuzz", "sklearn", "torch")
# One step of two questions.
SHORT = (
    "--config.steps=1",
    "--config.batch_size=2",
    "--config.grpo.num_completions=2",
    "--config.grpo.max_tokens=8",
    "--config.data.drop_solved=False",
)


def run(*words: object, folder: Path) -> subprocess.CompletedProcess:
    # PYTHONPATH would lead to the checkout. One device, as on a user's machine.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    flags = environment.get("XLA_FLAGS", "")
    environment["XLA_FLAGS"] = flags.replace("device_count=8", "device_count=1")
    return subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True
    )


def finish(*words: object, folder: Path) -> str:
    done = run(*words, folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """The environment's folder of programs."""
    folder = tmp_path_factory.mktemp("wheel")
    programs = folder / "environment" / "bin"
    finish(sys.executable, "-m", "venv", folder / "environment", folder=folder)
    pip = (programs / "python", "-m", "pip", "--disable-pip-version-check")
    one = ("download", "--no-deps", "--dest", folder / "reached", "absl-py")
    reached = run(*pip, *one, "--constraint", ROOT / "constraints.txt", folder=folder)
    if reached.returncode:
        pytest.skip(f"no package index is reachable: {reached.stderr.strip().splitlines()[-1]}")
    # A copy, as building leaves folders in the source.
    source = folder / "source"
    for name in ("sari_jax", "configs"):
        caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=caches)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    finish(sys.executable, "-m", "pip", *build, source, folder=folder)
    (wheel,) = folder.glob("sari_jax-*.whl")
    install = ("install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    finish(*pip, *install, folder=folder)
    return programs


@pytest.fixture(scope="module")
def sari(environment, tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs the installed command in a folder of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    return lambda *words: run(environment / "sari", *words, folder=folder)


@pytest.fixture(scope="module")
def model(sari, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("models") / "nano"
    done = sari("model", "assemble", "nano", "--out", out)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def workdir(sari, model, scored, tmp_path_factory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("runs")
    given = (f"--config.model.path={model}", f"--config.data.train={scored}", *SHORT)
    done = sari("train", "--config", "grpo:nano", "--workdir", folder / "run", *given)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run"


def test_the_core_brings_no_package_of_an_extra(environment, tmp_path):
    code = "import importlib.util as i, sys; print([n for n in sys.argv[1:] if i.find_spec(n)])"
    found = finish(environment / "python", "-c", code, *OF_EXTRAS, folder=tmp_path)
    assert found == "[]\n"


def test_the_package_is_imported_from_the_environment(environment, tmp_path):
    code = "import sari_jax; print(sari_jax.__file__)"
    found = finish(environment / "python", "-c", code, folder=tmp_path)
    assert Path(found.strip()).is_relative_to(environment.parent)


def test_it_trains(workdir):
    (line,) = (workdir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1


def test_it_exports_asks_scores_and_evaluates(sari, workdir, scored, tmp_path):
    model, clip = tmp_path / "model", json.loads(scored.read_text().splitlines()[0])["audio"][0]
    short = ("--max-tokens", 8, "--rows", 9)
    for words in (
        ("export", "--workdir", workdir, "--out", model),
        ("ask", "--model", model, "--audio", scored.parent / clip["path"], "--question", "Which?")
        + ("--max-tokens", 8),
        ("eval", "--model", model, "--benchmark", scored, "--out", tmp_path / "eval", *short),
    ):
        done = sari(*words)
        assert done.returncode == 0, done.stderr[-2000:]
    out = tmp_path / "scored.jsonl"
    done = sari("score", "--model", model, "--data", scored, "--out", out, "--attempts", 2, *short)
    assert f"{out.with_suffix('.png')} is not drawn: it needs matplotlib" in done.stderr
    assert json.loads(out.with_suffix(".report.json").read_text())["scored"] == 9


@pytest.mark.parametrize(
    "words, line",
    [
        (("report", ".", "--out", "a.html"), "report needs plotly, matplotlib, librosa|report"),
        (
            ("data", "clean", "--data", "a", "--out", "b"),
            "data clean needs rapidfuzz, sklearn|corpus",
        ),
        (("sweep", "a.py", "--out", "b"), "sweep needs matplotlib, plotly, librosa|sweep"),
        (("model", "assemble", "smol", "--out", "b"), "model assemble smol needs gguf|corpus"),
        (("check", "--model", "."), "check needs torch|bench"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(sari, words, line):
    needs, extra = line.split("|")
    done = sari(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"sari: sari {needs}; {install(extra)}\n"
