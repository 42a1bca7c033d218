"""What control groups leave of a machine's memory, in both of their versions."""

from types import SimpleNamespace

import pytest

from sari_jax.sweep import memory
from sari_jax.sweep.memory import available_memory

NAMES = {
    "new": ("", "memory.max", "memory.current", "inactive_file"),
    "old": ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@pytest.fixture
def left(tmp_path, monkeypatch):
    """A function that returns how many of 900 bytes a process of /job/step may still use.

    Each group is (limit, use, bytes of cached files in that use).
    """
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=900))

    def find(version, **groups):
        mount, limit, use, files = NAMES[version]
        for place, (most, used, read) in groups.items():
            folder = tmp_path / mount / place.replace("_", "/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / limit).write_text(f"{most}\n")
            (folder / use).write_text(f"{used}\n")
            (folder / "memory.stat").write_text(f"anon 9\n{files} {read}\ninactive_file 1\n")
        own = tmp_path / "own"
        controllers = "cpu,memory" if version == "old" else ""
        own.write_text(f"2:pids:/elsewhere\n4:{controllers}:/job/step\n")
        return available_memory(tmp_path, own)

    return find


@pytest.mark.parametrize("version", NAMES)
def test_the_least_that_any_group_around_leaves(left, version):
    assert left(version) == 900  # of the machine, where no group is known
    assert left(version, job_step=("max", 300, 40)) == 900
    assert left(version, job=(500, 300, 40)) == 240  # of all that runs in the job
    assert left(version, job_step=(200, 90, 10)) == 120
    assert left(version, elsewhere=(1, 0, 0)) == 120


def test_a_containers_own_view(left):
    """Its group is the mounted folder itself, whatever path the group has on the machine."""
    assert left("new", **{"": (500, 300, 40)}) == 240


def test_not_on_linux(tmp_path, left):
    left("new")
    assert available_memory(tmp_path, tmp_path / "none") == 900
