import sys

import jax
import pytest

from sari_jax.errors import InputError
from sari_jax.evaluate import parity
from sari_jax.models import encoder


def test_nano_is_what_transformers_reads(nano_dir):
    found = parity.check(nano_dir)
    assert found.max_abs_logit_diff <= 1e-4
    assert abs(found.mean_kl) < 1e-6
    assert found.greedy_equal and found.ok


def test_a_small_difference_is_noticed(nano_dir, monkeypatch):
    """gelu's tanh form, which is jax.nn's default and not Whisper's."""
    jax.clear_caches()
    monkeypatch.setattr(encoder, "gelu", jax.nn.gelu)
    found = parity.check(nano_dir, tokens=2)
    jax.clear_caches()
    assert found.max_abs_logit_diff > parity.TOLERANCE and not found.ok


def test_without_torch(nano_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="compares with PyTorch: pip install"):
        parity.check(nano_dir)


def test_no_model(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        parity.check(tmp_path)
