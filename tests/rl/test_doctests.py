"""The examples in the docstrings of `sari_jax.rl` and of everything below it."""

import doctest
import importlib
import pkgutil

import pytest

import sari_jax.rl

# Modules without an example: their functions need a model, or a file.
WITHOUT = {
    f"sari_jax.rl.{name}" for name in ("policy", "rewards", "rewards.file", "rewards.functions")
}
MODULES = {
    found.name: importlib.import_module(found.name)
    for found in pkgutil.walk_packages(sari_jax.rl.__path__, "sari_jax.rl.")
}


@pytest.mark.parametrize("name", sorted(MODULES.keys() - WITHOUT))
def test_examples_print_what_they_say(name):
    failed, tried = doctest.testmod(MODULES[name])
    assert failed == 0 and tried > 0


@pytest.mark.parametrize("name", ["advantages", "aggregation", "kl", "loss", "ratios"])
def test_every_formula_has_an_example(name):
    module = MODULES[f"sari_jax.rl.{name}"]
    examples = {test.name: test.examples for test in doctest.DocTestFinder().find(module)}
    public = [key for key in examples if key != module.__name__ and "._" not in key]
    assert public and all(examples[key] for key in public), examples
