"""What the record must notice, and what sketches keep."""

import ast

import numpy as np
import pytest
import recording
from recording import ENTRIES, RECORDED, TESTS, check_current, pairs, place, sketch, write


def drawn(shape=(40, 50), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_whole_numbers_and_small_arrays_are_kept_whole():
    tokens = np.arange(5000).reshape(50, 100)
    np.testing.assert_array_equal(sketch(tokens), tokens)
    small = drawn((ENTRIES,))
    np.testing.assert_array_equal(sketch(small), small.astype(np.float32))
    assert sketch(0.5).shape == ()


def test_sketches_are_no_farther_apart_than_the_arrays():
    for seed in range(20):
        array, noise = drawn(seed=seed), 1e-3 * drawn(seed=100 + seed)
        apart = np.abs(sketch(array + noise).astype(float) - sketch(array)).max()
        assert 1e-3 < apart <= np.abs(noise).max() + 1e-6
        assert np.abs(sketch(array)).max() == np.float32(np.abs(array).max())


def test_a_sketch_knows_another_order_and_another_scale():
    array = drawn()
    for other in (array.T, array[::-1], array[:, ::-1], 1.001 * array, array + 1e-3):
        assert np.abs(sketch(other) - sketch(array)).max() > 9e-4


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "test_a" / "test_b.safetensors", {"logits": sketch(drawn())})
    return tmp_path / "test_a" / "test_b.safetensors"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"logits": sketch(drawn() * (1 + 1e-5))}, "logits is .* from what PyTorch finds now"),
        ({"logits": sketch(drawn((3, 4)))}, "logits has another shape"),
        ({"logits": sketch(drawn()), "loss": sketch(1.0)}, "holds .'logits'."),
    ],
)
def test_a_stale_file_is_told_and_how_to_mend_it(file, found, told):
    with pytest.raises(AssertionError, match=f"test_b.safetensors: {told}.*make record"):
        check_current(file, found)


def test_rounding_is_not_stale(file):
    check_current(file, {"logits": sketch(drawn() * (1 + 1e-7))})


def test_without_torch_sketches_are_compared(file, monkeypatch):
    monkeypatch.setattr(recording, "TORCH", False)

    def find(theirs):
        raise AssertionError("asked for what is not there")

    ((ours, wanted),) = pairs(file, {"logits": drawn()}, find, record=False)
    np.testing.assert_array_equal(ours["logits"], wanted["logits"])
    with pytest.raises(AssertionError, match="test_c.safetensors: does not exist; run make record"):
        list(pairs(file.with_name("test_c.safetensors"), {}, find, record=False))


def test_every_file_is_some_tests():
    """Those of tests that are gone are taken out."""
    for file in RECORDED.rglob("*.safetensors"):
        test = (TESTS / file.parent.relative_to(RECORDED)).with_suffix(".py")
        assert test.exists(), f"{file}: {test} is gone"
        functions = {n.name for n in ast.parse(test.read_text()).body if hasattr(n, "name")}
        assert file.stem.split("-")[0] in functions, f"{file}: its test is gone"
        assert file.stat().st_size < 100_000, f"{file}: too large to keep"


def test_places():
    assert place(TESTS / "rl" / "test_loss.py", "test_a[0-0.1-x y]") == (
        RECORDED / "rl" / "test_loss" / "test_a-0-0.1-x-y.safetensors"
    )
