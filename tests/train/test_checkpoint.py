"""What a workdir remembers of its run, on any number of hosts and devices, and whenever it is killed."""

import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import end_hosts, environment, finish, start_hosts

from sari_jax.errors import InputError
from sari_jax.train.checkpoint import Checkpoints
from sari_jax.train.config import Optimizer
from sari_jax.train.optimizer import make_optimizer
from sari_jax.train.state import create_state


def test_a_rate_is_a_setting_and_in_no_checkpoint(tmp_path):
    """What is kept is the optimizer's state without it: folders from before it was a number still serve."""

    def state(rate, moved=0.0):
        optimizer = make_optimizer(Optimizer(learning_rate=rate), 10)
        made = create_state({"a/kernel": jnp.ones((2, 3)) + moved}, optimizer)
        return jax.tree.map(lambda x: x + 0, made)  # arrays of their own, which restoring frees

    checkpoints = Checkpoints(tmp_path, keep=1)
    moved = state(1e-3, moved=1.0).replace(step=jnp.int32(1))
    checkpoints.save(moved, {}, {})
    checkpoints.wait()
    found = checkpoints.restore(state(1e-3)).state
    checkpoints.close()
    assert jax.tree.structure(found) == jax.tree.structure(moved)
    assert float(found.opt_state.rate) == pytest.approx(1e-3)
    np.testing.assert_array_equal(found.params["a/kernel"], 2 * np.ones((2, 3)))
    kept = Checkpoints(tmp_path, keep=1)
    unrated = state(1e-3)
    unrated = unrated.replace(opt_state=unrated.opt_state.kept)
    assert jax.tree.structure(kept.restore(unrated).state) == jax.tree.structure(unrated)
    kept.close()


def small_state(step):
    made = create_state(
        {"a/kernel": jnp.full((64, 8), float(step))}, make_optimizer(Optimizer(), 10)
    )
    return jax.tree.map(lambda x: x + 0, made).replace(step=jnp.int32(step))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("part", ["state", "data", "counters"])
@pytest.mark.parametrize("damage", [cut, overwritten, lambda path: path.unlink()])
def test_of_a_damaged_newest_step_the_one_before_is_taken(part, damage, tmp_path, capfd):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save(small_state(step), {"next_index": step}, {"examples": step})
    checkpoints.close()
    files = (tmp_path / "checkpoints" / "2" / part).rglob("*")
    for path in [path for path in files if path.is_file() and path.stat().st_size]:
        damage(path)
    checkpoints = Checkpoints(tmp_path, keep=2)
    found = checkpoints.restore(small_state(0))
    assert int(found.state.step) == 1 and found.data == {"next_index": 1}
    np.testing.assert_array_equal(found.state.params["a/kernel"], np.ones((64, 8)))
    told = capfd.readouterr().err
    assert "checkpoints/2: cannot be read" in told and "goes on from step 1" in told
    assert (tmp_path / "damaged" / "2").exists()
    # The step is made again, and saved under the same number.
    checkpoints.save(small_state(2), {"next_index": 2}, {"examples": 2})
    checkpoints.wait()
    assert checkpoints.steps == [1, 2] and int(checkpoints.restore(small_state(0)).state.step) == 2
    checkpoints.close()


def test_a_step_is_saved_once(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for index in (1, 2):
        checkpoints.save(small_state(1), {"next_index": index}, {})
    checkpoints.wait()
    assert checkpoints.restore(small_state(0)).data == {"next_index": 1}
    checkpoints.close()


def test_where_no_step_can_be_read(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(small_state(1), {}, {})
    checkpoints.close()
    for path in (tmp_path / "checkpoints" / "1" / "state").rglob("*"):
        if path.is_file():
            path.unlink()
    for _ in range(2):  # the same command again does not begin anew over what is there
        checkpoints = Checkpoints(tmp_path, keep=2)
        with pytest.raises(InputError, match="none of its checkpoints can be read"):
            checkpoints.restore(small_state(0))
        checkpoints.close()


FULL = """
import resource, signal, sys
import jax, jax.numpy as jnp, optax
from sari_jax.errors import InputError
from sari_jax.train.checkpoint import Checkpoints
from sari_jax.train.state import create_state

def state(step, size):
    params = {"a/kernel": jax.random.normal(jax.random.key(0), (size, 64))}
    return create_state(params, optax.sgd(0.1)).replace(step=jnp.int32(step))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = Checkpoints(sys.argv[1], keep=3)
checkpoints.save(state(1, 8), {}, {})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
checkpoints.save(state(2, 4096), {}, {})
try:
    checkpoints.wait()
except InputError as error:
    print(error)
checkpoints = Checkpoints(sys.argv[1], keep=3)
assert int(checkpoints.restore(state(0, 8)).state.step) == 1
"""


@pytest.mark.runs
def test_a_save_in_the_background_that_finds_no_room_is_told_and_the_step_before_is_whole(tmp_path):
    done = finish([sys.executable, "-c", FULL, str(tmp_path)])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a checkpoint cannot be written" in done.stdout
    assert "goes on from step 1" in done.stdout


STATE = """
import itertools, sys
import jax, jax.numpy as jnp, numpy as np, optax
from sari_jax.parallel import hosts
from sari_jax.parallel.mesh import make_mesh, put_on_mesh, parameter_sharding
from sari_jax.train.checkpoint import Checkpoints
from sari_jax.train.state import create_state

PATHS = {"decoder/embed/embedding": (64, 16), "decoder/layers/q_proj/kernel": (2, 16, 32), "decoder/norm/scale": (16,)}

def make(mesh, step, size=1):
    params = {}
    for path, shape in PATHS.items():
        shape = (shape[0] * size, *shape[1:])
        values = np.random.default_rng(step).standard_normal(shape, np.float32)
        lies = parameter_sharding(mesh, path, shape)
        params[path] = jax.make_array_from_callback(shape, lies, lambda index: values[index])
    state = put_on_mesh(mesh, create_state(params, optax.adamw(0.1)))
    return state.replace(step=put_on_mesh(mesh, jnp.int32(step)))

def check(found, mesh, size=1):
    wanted = make(mesh, int(found.step), size)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.sharding == b.sharding, (a.sharding, b.sharding)
        for x, y in zip(a.addressable_shards, b.addressable_shards, strict=True):
            np.testing.assert_array_equal(jax.device_get(x.data), jax.device_get(y.data))
"""
MOVE = (
    STATE
    + """
folder, do, *sizes = sys.argv[1:]
with hosts.initialize_distributed():
    mesh = make_mesh(*map(int, sizes))
    checkpoints = Checkpoints(folder, keep=2)
    if do == "save":
        ahead = {"tokens": np.arange(6).reshape(2, 3), "rows_decoded": np.array(7)}
        checkpoints.save(make(mesh, 3), {"next_index": 4}, {"examples": 5}, ahead)
        checkpoints.wait()
    else:
        found = checkpoints.restore(make(mesh, 0))
        assert int(found.state.step) == 3 and found.data == {"next_index": 4} and found.counters == {"examples": 5}
        check(found.state, mesh)
        assert found.prefetched["tokens"].tolist() == [[0, 1, 2], [3, 4, 5]] and found.prefetched["rows_decoded"] == 7
    checkpoints.close()
"""
)


@pytest.mark.runs
@pytest.mark.parametrize("saved_by", ["two hosts", "one process"])
def test_what_some_hosts_saved_others_restore_over_another_mesh(saved_by, tmp_path):
    def hosts(*words):
        done = end_hosts(start_hosts([sys.executable, "-c", MOVE, str(tmp_path), *words]))
        assert [host.returncode for host in done] == [0, 0], done[0].stderr[-2000:]

    def process(*words):
        done = finish([sys.executable, "-c", MOVE, str(tmp_path), *words], devices=8)
        assert done.returncode == 0, done.stderr[-2000:]

    first, then = (hosts, process) if saved_by == "two hosts" else (process, hosts)
    first("save", "1", "8", "1")
    then("restore", "1", "2", "4")
    then("restore", "2", "2", "2")


KILLED = (
    STATE
    + """
SIZE = 2048
mesh, checkpoints = make_mesh(), Checkpoints(sys.argv[1], keep=1)
found, step = checkpoints.restore(make(mesh, 0, SIZE)), 0
if found:
    check(found.state, mesh, SIZE)
    step = int(found.state.step)
print("restored", step, flush=True)
for step in itertools.count(step + 1):
    checkpoints.save(make(mesh, step, SIZE), {}, {})
"""
)


@pytest.mark.runs
def test_killed_during_a_save_the_last_complete_step_is_there(tmp_path):
    """Only one step is kept: the old one must not go before the new one is complete."""
    chance, complete = random.Random(0), 0

    def steps():
        paths = (tmp_path / "checkpoints").glob("*")
        return [int(path.name) for path in paths if path.name.isdigit()]

    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        restored = process.stdout.readline()
        assert restored.startswith("restored") and int(restored.split()[1]) >= complete
        # At first none is complete yet; later saves follow each other without a pause.
        while max(steps(), default=0) <= complete and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        complete = max(steps())
