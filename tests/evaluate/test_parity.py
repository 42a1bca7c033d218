import shutil
import sys

import pytest

from sari_jax.errors import InputError
from sari_jax.evaluate import parity


@pytest.mark.numerics
@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("model", ["small_model", "nano_dir"])
def test_a_model_is_what_transformers_reads(model, request):
    found = parity.check(request.getfixturevalue(model))
    assert found.max_abs_logit_diff <= 1e-4
    assert abs(found.mean_kl) < 1e-6
    assert found.greedy_equal and found.ok


@pytest.mark.numerics
def test_omni_is_what_transformers_reads(omni_dir, theirs, tmp_path):
    """The whole model's directory, and its thinker alone."""
    thinker = tmp_path / "thinker"
    shutil.copytree(omni_dir, thinker)
    (thinker / "model.safetensors").unlink()
    theirs.read(omni_dir, "qwen2_5_omni", "auto").save_pretrained(thinker)
    for directory in (omni_dir, thinker):
        found = parity.check(directory)
        assert found.ok and found.max_abs_logit_diff <= 1e-4 and found.greedy_equal


@pytest.mark.numerics
@pytest.mark.usefixtures("theirs")
def test_a_small_difference_is_noticed(small_model, monkeypatch):
    class Off(parity.Engine):
        """One weight of sound's way into the decoder is a little off."""

        def __init__(self, model_dir):
            super().__init__(model_dir)
            projector = self.params["projector"]
            projector["bias"] = projector["bias"].at[0].add(0.05)

    monkeypatch.setattr(parity, "Engine", Off)
    found = parity.check(small_model)
    assert found.max_abs_logit_diff > parity.TOLERANCE and not found.ok


def test_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        InputError, match=r"sari check needs torch; pip install 'sari_jax\[bench\]'"
    ):
        parity.check(tmp_path)


@pytest.mark.usefixtures("theirs")
def test_no_model(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        parity.check(tmp_path)
