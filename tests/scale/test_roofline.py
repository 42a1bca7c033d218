import dataclasses

import pytest

from sari_jax.models.work import CHIPS
from sari_jax.scale.roofline import Step, bounds, sheet


def test_the_7b_by_hand():
    """6.6e9 weights in the layers, 0.6e9 in the head: 14.5 GB to read for each token, at 8 x 0.81 TB/s."""
    one = Step(prompts=1, num_completions=1, prompt_tokens=1, new_tokens=1)
    assert bounds(one, "v5e")["decode"] == pytest.approx(14.2e9 / 6.48e12, rel=0.03)
    found = bounds(Step(), "v5e")
    tokens = 8 * (850 + 8 * 256)
    assert found["reference"] == pytest.approx(2 * 6.5e9 * tokens / (8 * 197e12), rel=0.15)
    assert found["update"] == pytest.approx(3 * found["reference"])


def test_decoding_is_bound_by_memory_and_the_rest_by_arithmetic():
    for chip in CHIPS:
        found, wider = (bounds(Step(num_completions=g), chip) for g in (8, 16))
        assert wider["decode"] < 1.5 * found["decode"]
        assert 1.3 * found["update"] < wider["update"] < 2 * found["update"]
        halved = bounds(dataclasses.replace(Step(), chips=16), chip)
        assert all(halved[part] == pytest.approx(found[part] / 2) for part in found)


def test_the_sheet_has_a_row_for_each_chip():
    lines = sheet(Step()).splitlines()
    assert len(lines) == 2 + len(CHIPS) and len({line.count("|") for line in lines}) == 1
