import pytest

from sari_jax.corpus.synthesize.budget import Budget, Limits
from sari_jax.corpus.synthesize.cache import Reply

REPLY = Reply("a dog", "stop", 1_000_000, 500_000)


def test_without_limits_it_only_counts():
    budget = Budget()
    budget.spend(REPLY)
    assert budget.tokens == 1_500_000 and not budget.exhausted
    assert budget.report() == {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}


def test_tokens_of_earlier_runs_count():
    assert Budget(Limits(tokens=1_500_000), [REPLY]).exhausted
    assert not Budget(Limits(tokens=1_500_001), [REPLY]).exhausted


def test_a_budget_of_money():
    budget = Budget(Limits(cost=2.0, price_in=1.0, price_out=2.0))
    assert not budget.exhausted
    budget.spend(REPLY)
    assert budget.cost == pytest.approx(2.0) and budget.exhausted
    assert budget.report()["cost"] == pytest.approx(2.0)
