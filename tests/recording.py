"""Results of transformers and PyTorch, kept in tests/recorded, for comparisons on machines without PyTorch too.

A parity test passes our arrays, and a function that takes the module `theirs` and returns theirs under the same names:

    def test_logits_as_transformers(tiny_model, recorded):
        found = {"logits": logits(tiny_model)}
        for ours, wanted in recorded(found, lambda theirs: {"logits": theirs.logits(tiny_model)}):
            np.testing.assert_allclose(ours["logits"], wanted["logits"], rtol=0, atol=1e-4)

With PyTorch, their side is computed and the loop runs twice: over whole arrays, and over sketches of our arrays and
those of the test's file. The file must agree with what was just computed; `make record` writes the files again. Without
PyTorch, the loop runs once, over the sketches. Both sides start from numpy's seeds alone (`tiny.weights`,
`tiny.question`).
"""

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from safetensors.numpy import load_file, save

TESTS = Path(__file__).parent
RECORDED = TESTS / "recorded"
# Entries of a sketch. It is a prime, so that they come from all columns.
ENTRIES = 509
# How much another processor may differ, relative to an array's largest value.
ROUNDING = 1e-6
TORCH = importlib.util.find_spec("torch") is not None

Arrays = dict[str, np.ndarray]


def sketch(array: np.ndarray) -> np.ndarray:
    """Returns a small array as it is; of a large one, evenly spread entries, the largest magnitude and the RMS.

    Between two arrays none of these differs by more than their largest difference. So if two arrays agree within a
    bound, absolute or relative to the largest magnitude, their sketches do too.
    """
    array = np.asarray(array)
    if array.dtype.kind in "iub":
        return array.astype(np.int32)
    if array.size <= ENTRIES:
        return array.astype(np.float32)
    flat = array.astype(np.float64).ravel()
    spread = flat[np.linspace(0, flat.size - 1, ENTRIES).astype(int)]
    whole = [np.abs(flat).max(), np.sqrt(np.mean(flat**2))]
    return np.concatenate([spread, whole]).astype(np.float32)


def sketches(arrays: Arrays) -> Arrays:
    return {name: sketch(array) for name, array in arrays.items()}


def place(test: Path, name: str) -> Path:
    """Returns the file of one test with its parameters."""
    within = test.relative_to(TESTS).with_suffix("")
    return RECORDED / within / (re.sub(r"[^\w.]+", "-", name).strip("-") + ".safetensors")


def pairs(
    file: Path, ours: Arrays, find: Callable[[ModuleType], Arrays], record: bool
) -> Iterator[tuple[Arrays, Arrays]]:
    """Yields (ours, theirs) to compare; see the module's docstring."""
    if TORCH:
        import theirs

        found = {name: np.asarray(array) for name, array in find(theirs).items()}
        if record:
            write(file, sketches(found))
        check_current(file, sketches(found))
        yield dict(ours), found
    yield sketches(ours), read(file)


def read(file: Path) -> Arrays:
    assert file.exists(), f"{file}: does not exist; run make record where PyTorch is installed"
    return load_file(file)


def write(file: Path, arrays: Arrays) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_bytes(save(arrays))
    aside.replace(file)


def check_current(file: Path, found: Arrays) -> None:
    kept = read(file)
    mend = "if that is intended, run make record"
    assert kept.keys() == found.keys(), f"{file}: holds {sorted(kept)}; {mend}"
    for name, array in found.items():
        assert kept[name].shape == array.shape, f"{file}: {name} has another shape; {mend}"
        gap = np.abs(kept[name].astype(np.float64) - array).max(initial=0)
        bound = 0 if array.dtype.kind == "i" else ROUNDING * np.abs(array).max(initial=0)
        assert gap <= bound, f"{file}: {name} is {gap:.3g} from what PyTorch finds now; {mend}"
