"""`make test` says the same whatever lies about in the checkout: finished runs, notebooks, environments."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BAD = "import sys, os\n"
NOTEBOOK = '{"cells": [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": 1,\
 "source": ["import sys, os"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'


@pytest.fixture
def checkout(tmp_path) -> Path:
    for folder in ("experiments", "tests"):
        (tmp_path / folder).mkdir()
        for path in (ROOT / folder).glob("*.py"):
            shutil.copyfile(path, tmp_path / folder / path.name)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    # Folders that bear the names of the tests' modules, of libraries and of our folders.
    for name in ("runs", "demo", "tiny", "recording", "wandb", "datasets", "numpy", "pytest"):
        (tmp_path / name).mkdir()
    for name in ("runs/demo/own.py", "runs/a/test_own.py", "demo/test_b.py", "runs/.venv/lib/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(BAD)
    for name in ("try.ipynb", "runs/try.ipynb", "tests/try.ipynb"):
        (tmp_path / name).write_text(NOTEBOOK)
    (tmp_path / "runs/demo/metrics.jsonl").write_text('{"step": 1}\n')
    for name in (".venv/lib/d.py", ".venv-other/lib/test_e.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(BAD)
    return tmp_path


def ruff(checkout: Path) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    return subprocess.run(words, cwd=checkout, capture_output=True, text=True)


def test_lint_reads_what_is_ours_alone(checkout):
    done = ruff(checkout)
    assert done.returncode == 0, done.stdout
    (checkout / "tests" / "test_new.py").write_text(BAD)
    assert "tests/test_new.py" in ruff(checkout).stdout
