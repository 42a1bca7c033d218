import os

import jax
import jax.numpy as jnp
import numpy as np

from sari_jax.programs import ONE_BY_ONE, counted, prepare

FLAG = ONE_BY_ONE.split("=")[0]


def test_what_the_environment_says_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{FLAG}=true")
    kept = jax.config.jax_compilation_cache_dir  # the suite's own
    prepare()
    assert os.environ["XLA_FLAGS"] == f"{FLAG}=true"
    assert jax.config.jax_compilation_cache_dir == kept


def test_flags_are_added_once_and_only_where_they_are_known(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.10.2")
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    prepare()
    prepare()
    assert os.environ["XLA_FLAGS"] == f"--other=1 {ONE_BY_ONE}"
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.99.0")
    prepare()
    assert os.environ["XLA_FLAGS"] == "--other=1"


def test_a_new_shape_is_a_new_program():
    double = jax.jit(lambda x: 2 * x)
    with counted() as programs:
        double(np.zeros(7, np.float32))
        first = programs.count
        double(np.ones(7, np.float32))
        assert programs.count == first == 1
        double(np.zeros(8, np.float32))
    assert programs.count == 2 and programs.seconds > 0
    assert str(programs).startswith("2 programs compiled")
    double(jnp.zeros(9))
    assert programs.count == 2
