"""Two real processes on loopback, and what is asked of the environment before there are two."""

import subprocess
import sys

import pytest
from runs import end_hosts, start_hosts

from sari_jax.errors import InputError
from sari_jax.parallel import hosts

ROWS = """
import jax, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from sari_jax.errors import InputError
from sari_jax.parallel import hosts, mesh as m

def mesh_of(places):  # a mesh of the devices at these places
    return Mesh(np.array(jax.devices())[places], m.AXES, axis_types=(AxisType.Auto,) * 3)

with hosts.initialize_distributed():
    me = jax.process_index()
    print("stdout is the command's alone", flush=True) if me == 0 else None
    side_by_side = mesh_of(np.arange(8).reshape(1, 8, 1))
    by_turns = mesh_of(np.array([0, 4, 1, 5, 2, 6, 3, 7]).reshape(2, 4, 1))
    across = mesh_of(np.arange(8).reshape(2, 4).T.reshape(2, 2, 2))  # both hold all rows, each the half of `tensor`
    wanted = {
        side_by_side: range(8 * me, 8 * me + 8),
        by_turns: [2 * shard + row for shard in range(me, 8, 2) for row in (0, 1)],
        across: range(16),
    }
    batch = np.arange(48, dtype=np.int32).reshape(16, 3)
    for mesh, rows in wanted.items():
        mine = m.local_row_indices(mesh, 16)
        assert mine == list(rows), (me, mine)
        with jax.transfer_guard("disallow"), jax.set_mesh(mesh):
            placed = m.shard_batch(mesh, {"x": batch[mine]})
            assert placed["x"].shape == batch.shape and placed["x"].sharding.spec == P(("data", "fsdp"))
            for shard in placed["x"].addressable_shards:
                np.testing.assert_array_equal(jax.device_get(shard.data), batch[shard.index])
            np.testing.assert_array_equal(m.local_rows(mesh, placed)["x"], batch[mine])
            np.testing.assert_array_equal(m.all_rows(mesh, batch[mine]), batch)
        transposed = jax.jit(lambda x: x.T, out_shardings=NamedSharding(mesh, P(None, "fsdp")))(placed["x"])
        np.testing.assert_array_equal(m.fetch_global(mesh, transposed), batch.T)
        back = jax.jit(lambda x: x.T, out_shardings=NamedSharding(mesh, P()))(transposed)
        np.testing.assert_array_equal(m.local_rows(mesh, back), batch[mine])
        key = m.put_on_mesh(mesh, jax.random.key(5))
        assert key.sharding.device_set == set(mesh.devices.flat)
        bits = m.fetch_global(mesh, jax.jit(jax.random.bits)(key))
        assert bits == jax.random.bits(jax.random.key(5))
    np.testing.assert_array_equal(hosts.all_gather(np.array([me, 7], np.int32)), [[0, 7], [1, 7]])
    assert hosts.all_gather_text("ä" * 300 * me) == ["", "ä" * 300]
    with hosts.raise_on_all_hosts():
        pass
    hosts.assert_same_on_all_hosts({"seed": 1, "model.path": "a"})
    hosts.is_primary() and print("agreed", flush=True)
    if me:
        mine = {"seed": 1, "optimizer.b1": 0.5, "version.jax": "0"}
    else:
        mine = {"seed": 1, "optimizer.b1": 0.9, "version.jax": "1"}
    try:
        hosts.assert_same_on_all_hosts(mine)
    except InputError as error:
        print(error, flush=True)
    else:
        raise SystemExit("they do not agree")
"""


@pytest.mark.runs
def test_rows_words_and_settings_between_two_hosts():
    done = end_hosts(start_hosts([sys.executable, "-c", ROWS]))
    assert [host.returncode for host in done] == [0, 0], done[0].stderr[-2000:] + done[1].stderr
    message = (
        'the hosts do not run the same: optimizer.b1: 0.5 on host 1, 0.9 on the others; version.jax: "0"'
        ' on host 1, "1" on the others; start the same command, with the same code and files, on every host'
    )
    assert done[0].stdout.splitlines() == ["stdout is the command's alone", "agreed", message]
    assert done[1].stdout.splitlines() == [message]


ENDS = """
import sys
import jax, numpy as np
from sari_jax.errors import InputError
from sari_jax.parallel import hosts

try:
    with hosts.initialize_distributed():
        how = sys.argv[1]
        if how == "together":
            with hosts.raise_on_all_hosts():
                if jax.process_index() == 1:
                    raise InputError("clip.wav: no such sound file")
        hosts.all_gather(np.zeros(1, np.int32))
        if jax.process_index() == 1:
            raise InputError("alone") if how == "alone" else SystemError("a mistake")
        for _ in range(10**6):
            hosts.all_gather(np.zeros(1, np.int32))
except InputError as error:
    sys.exit(f"sari: {error}")
"""


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("together", 1, "sari: host 1: clip.wav: no such sound file"),
        pytest.param("alone", 2, "sari: alone", marks=pytest.mark.runs),
        pytest.param(
            "mistaken",
            1,
            "sari: host 1 stopped: SystemError: a mistake; if another host is gone",
            marks=pytest.mark.runs,
        ),
    ],
)
def test_no_host_waits_for_one_that_failed(how, code, message):
    words = [sys.executable, "-c", ENDS, how]
    survivor, failed = end_hosts(start_hosts(words, heartbeat=10))
    assert failed.returncode == code and message in failed.stderr, failed.stderr
    assert survivor.returncode != 0
    if how == "together":
        assert survivor.returncode == code and message in survivor.stderr, survivor.stderr


def arguments_in(monkeypatch, **environ):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return hosts._initialize_arguments()


def test_one_process_asks_for_no_others(monkeypatch):
    assert arguments_in(monkeypatch) is None
    assert arguments_in(monkeypatch, SLURM_NTASKS="1") is None
    with hosts.initialize_distributed():
        assert not hosts.is_multihost() and hosts.is_primary()
        assert hosts.all_gather_text("x") == ["x"]
        hosts.assert_same_on_all_hosts({"a": 1})
        with pytest.raises(InputError, match="^as it is$"), hosts.raise_on_all_hosts():
            raise InputError("as it is")


def test_half_of_a_character_is_escaped_for_other_hosts(monkeypatch):
    monkeypatch.setattr(hosts, "is_multihost", lambda: True)
    assert hosts.all_gather_text("row \ud83d") == ["row \\ud83d"]


def test_settings_of_the_environment(monkeypatch):
    assert arguments_in(monkeypatch, SLURM_NTASKS="4") == {}  # JAX finds the rest
    given = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:80", "JAX_NUM_PROCESSES": "2"}
    with pytest.raises(InputError, match="JAX_PROCESS_ID is not"):
        arguments_in(monkeypatch, **given)
    whole = arguments_in(monkeypatch, **given, JAX_PROCESS_ID="1")
    assert whole == {"coordinator_address": "10.0.0.1:80", "num_processes": 2, "process_id": 1}
    with pytest.raises(InputError, match="JAX_PROCESS_ID = 2 must be under JAX_NUM_PROCESSES = 2"):
        arguments_in(monkeypatch, **given, JAX_PROCESS_ID="2")
    with pytest.raises(InputError, match="JAX_PROCESS_ID = 'one' must be a whole number"):
        arguments_in(monkeypatch, **given, JAX_PROCESS_ID="one")
    with pytest.raises(InputError, match="'10.0.0.1' must be HOST:PORT"):
        arguments_in(
            monkeypatch, **given | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, JAX_PROCESS_ID="1"
        )


def test_versions_tell_one_state_of_the_code_from_another():
    versions = hosts.versions()
    assert versions == hosts.versions() and len(versions["version.sari_jax"]) == 16
    assert versions["version.jax"].startswith("0.")


def test_importing_it_starts_nothing():
    code = "from sari_jax.parallel import hosts; import jax; print(jax._src.xla_bridge.backends_are_initialized())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
