from pathlib import Path

import pytest

from sari_jax.rl.advantages import ADVANTAGES
from sari_jax.rl.aggregation import AGGREGATIONS
from sari_jax.rl.kl import ESTIMATORS
from sari_jax.rl.objectives import OBJECTIVES, OFF
from sari_jax.rl.ratios import RATIOS


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_every_part_has_a_name_that_is_known(objective):
    assert objective.advantages in ADVANTAGES and objective.aggregation in AGGREGATIONS
    assert objective.ratio in RATIOS and objective.kl in ESTIMATORS
    assert 0 < objective.clip_low <= objective.clip_high and objective.kl_coefficient >= 0


def test_no_two_are_the_same():
    assert len(set(OBJECTIVES.values())) == len(OBJECTIVES) == 5


def test_the_table_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for name, o in OBJECTIVES.items():
        clip = "none" if o.clip_low == OFF else f"{o.clip_low:.9g} / {o.clip_high:.9g}"
        numbers = f"{clip} | {o.kl} | {o.kl_coefficient:g} | {o.max_generation_batches}"
        row = f"| `{name}` | {o.advantages} | {o.aggregation} | {o.ratio} | {numbers} |"
        assert row in page, row
