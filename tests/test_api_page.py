"""The examples of docs/api.md and of the notebook run in order, as they are written."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
# What the notebook takes of Jupyter, and what stands for it here.
IMPORT = "from IPython.display import Audio, display\n"
STAND_IN = """
def Audio(filename):
    assert Path(filename).is_file()
    return filename


def display(*shown):
    assert shown
"""


@pytest.mark.tools
def test_the_page_runs(small_model, starter_dir, tmp_path, monkeypatch):
    """Its first example builds what the fixtures have built; the others run in one namespace."""
    page = (ROOT / "docs" / "api.md").read_text()
    first, *others = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert "train=96, validation=12, test=24" in first  # as conftest.py builds it
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "nano").symlink_to(small_model)
    (tmp_path / "runs" / "starter").symlink_to(starter_dir)
    script = tmp_path / "page.py"
    script.write_text("import sari_jax as sari\n\n" + "\n".join(others))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    assert (tmp_path / "runs" / "report.html").is_file()


def cells(kind: str) -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_is_kept_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown") and isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile("".join(cell["source"]), cell["id"], "exec")
    assert any("TPU VM" in text for text in cells("markdown"))


@pytest.mark.tools
def test_the_notebook_runs(tmp_path):
    """From nothing, in a process and a folder of its own."""
    source = "\n\n".join(cells("code"))
    assert source.count(IMPORT) == 1
    script = tmp_path / "quickstart.py"
    script.write_text(source.replace(IMPORT, STAND_IN))
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)  # one device, as on most machines
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "quickstart" / "model" / "config.json").is_file()
