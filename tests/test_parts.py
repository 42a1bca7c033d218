import subprocess
import sys
from pathlib import Path

import pytest
from parts import ELSEWHERE, PARTS, TOUCHES, due, share, touched

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        (["README.md", "docs/data.md", "sari_jax/data/records.py"], []),
        (["sari_jax/models/encoder.py"], ["numerics"]),
        (["tests/models/test_encoder.py"], ["numerics"]),
        (["sari_jax/train/loop.py", "tpu_scripts/host.sh"], ["runs", "tools"]),
        (["tests/train/test_steps.py"], ["numerics", "runs"]),
        (["sari_jax/train/updates.py"], ["numerics", "runs"]),
        (["tests/tpu_scripts/test_host.py"], ["tools"]),
        (["constraints.txt"], [*PARTS]),
        (["tests/conftest.py"], [*PARTS]),
        (["tests/runs.py", "tests/tiny.py"], ["numerics", "runs"]),
    ],
)
def test_a_change_runs_the_parts_it_touches(paths, parts):
    assert touched(paths) == parts


def test_a_part_that_is_not_touched_runs_by_thirds():
    assert due([], 4) == ["numerics 2/3", "runs 2/3", "tools 2/3"]
    assert due(["sari_jax/models/encoder.py"], 3) == ["numerics 1/1", "runs 1/3", "tools 1/3"]
    assert len({due([], count)[0] for count in range(3)}) == 3


def test_each_test_is_in_exactly_one_share():
    found = [share([*range(8)], f"{k}/3") for k in (1, 2, 3)]
    assert sorted(sum(found, [])) == [*range(8)] and all(found)


def test_a_mistaken_share_is_one_line():
    words = [sys.executable, "-m", "pytest", "--share=5/3", "--collect-only", __file__]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 4 and "K/N" in done.stderr and "INTERNAL" not in done.stdout


@pytest.mark.parametrize("given", ["0/3", "4/3", "3", "a/b", "1/0"])
def test_a_share_that_cannot_be(given):
    with pytest.raises(ValueError, match="K/N"):
        share([1], given)


def test_the_table_names_existing_paths():
    for start in TOUCHES:
        folder, _, name = start.rpartition("/")
        there = [*(ROOT / "sari_jax" / folder).iterdir(), *(ROOT / "tests" / folder).iterdir()]
        assert any(path.name.removeprefix("test_").startswith(name) for path in there), start
    assert all((ROOT / path).exists() for path in ELSEWHERE)
