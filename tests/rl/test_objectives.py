import pytest

from sari_jax.rl.advantages import ADVANTAGES
from sari_jax.rl.aggregation import AGGREGATIONS
from sari_jax.rl.kl import ESTIMATORS
from sari_jax.rl.objectives import OBJECTIVES
from sari_jax.rl.ratios import RATIOS


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_every_part_has_a_name_that_is_known(objective):
    assert objective.advantages in ADVANTAGES and objective.aggregation in AGGREGATIONS
    assert objective.ratio in RATIOS and objective.kl in ESTIMATORS
    assert 0 < objective.clip_low <= objective.clip_high and objective.kl_coefficient >= 0


def test_no_two_are_the_same():
    assert len(set(OBJECTIVES.values())) == len(OBJECTIVES) == 5
