from pathlib import Path

import pytest
from parts import ELSEWHERE, PARTS, TOUCHES, due, touched

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        (["README.md", "docs/data.md", "sari_jax/data/records.py"], []),
        (["sari_jax/models/encoder.py"], ["numerics"]),
        (["tests/models/test_encoder.py"], ["numerics"]),
        (["sari_jax/train/loop.py", "tpu_scripts/host.sh"], ["runs", "tools"]),
        (["tests/train/test_steps.py"], ["numerics", "runs"]),
        (["tests/tpu_scripts/test_host.py"], ["tools"]),
        (["constraints.txt"], [*PARTS]),
        (["tests/conftest.py"], [*PARTS]),
    ],
)
def test_a_change_is_owed_the_parts_it_touches(paths, parts):
    assert touched(paths) == parts


def test_every_part_has_its_turn():
    assert [due([], count)[1] for count in range(3)] == [*PARTS]
    assert due(["sari_jax/models/encoder.py"], 0) == (["numerics"], None)
    assert due(["sari_jax/models/encoder.py"], 1) == (["numerics"], "runs")


def test_the_table_names_what_there_is():
    for start in TOUCHES:
        folder, _, name = start.rpartition("/")
        there = [*(ROOT / "sari_jax" / folder).iterdir(), *(ROOT / "tests" / folder).iterdir()]
        assert any(path.name.removeprefix("test_").startswith(name) for path in there), start
    assert all((ROOT / path).exists() for path in ELSEWHERE)
