import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sari_jax.rl.advantages import ADVANTAGES
from sari_jax.rl.kl import penalised
from sari_jax.rl.loss import grpo_loss
from sari_jax.rl.objectives import OBJECTIVES, Objective
from sari_jax.rl.ratios import truncated_importance

LENGTHS = np.array([[4, 1, 7], [2, 7, 3]])
MASK = np.arange(7) < LENGTHS[..., None]


def drawn(seed=0, spread=0.4):
    """logprobs, old, reference: near each other, some ratios beyond the clip on either side; and advantages."""
    rng = np.random.default_rng(seed)
    logprobs = -rng.uniform(0.1, 3, MASK.shape)
    old, reference = (logprobs + spread * rng.standard_normal(MASK.shape) for _ in range(2))
    return [x.astype(np.float32) for x in (logprobs, old, reference, rng.standard_normal((2, 3)))]


def by_torch(logprobs, old, reference, advantages, mask, epsilon, beta):
    """Row by row and token by token, in float64."""
    import torch

    logprobs, old, reference, advantages = (
        torch.tensor(x, dtype=torch.float64) for x in (logprobs, old, reference, advantages)
    )
    logprobs.requires_grad_(True)
    sequences = []
    for b, g in np.argwhere(mask.any(axis=-1)):
        terms = []
        for t in np.flatnonzero(mask[b, g]):
            ratio = torch.exp(logprobs[b, g, t] - old[b, g, t])
            gain = torch.minimum(
                ratio * advantages[b, g],
                torch.clamp(ratio, 1 - epsilon, 1 + epsilon) * advantages[b, g],
            )
            distance = reference[b, g, t] - logprobs[b, g, t]
            terms.append(gain - beta * (torch.exp(distance) - distance - 1))
        sequences.append(torch.stack(terms).mean())
    loss = -torch.stack(sequences).mean()
    loss.backward()
    return {"loss": loss.detach(), "gradient": logprobs.grad.numpy()}


def symmetric(epsilon=0.2, beta=0.04) -> Objective:
    return dataclasses.replace(
        OBJECTIVES["grpo"], clip_low=epsilon, clip_high=epsilon, kl_coefficient=beta
    )


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(objective, logprobs, old, reference, advantages, mask, importance):
    return jax.value_and_grad(
        lambda x: grpo_loss(objective, x, old, reference, advantages, mask, importance=importance),
        has_aux=True,
    )(logprobs)


def ours(logprobs, old, reference, advantages, mask, objective=symmetric(), importance=None):
    given = jax.tree.map(jnp.array, (logprobs, old, reference, advantages, mask, importance))
    (loss, metrics), gradient = loss_and_gradient(objective, *given)
    return (
        float(loss),
        np.asarray(gradient),
        {name: float(value) for name, value in metrics.items()},
    )


def agree(recorded, loss, gradient, find):
    for found, wanted in recorded({"loss": loss, "gradient": gradient}, find):
        assert float(found["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-5)
        bound = 1e-6 * np.abs(wanted["gradient"]).max()
        np.testing.assert_allclose(found["gradient"], wanted["gradient"], rtol=0, atol=bound)


@pytest.mark.parametrize(("epsilon", "beta"), [(0.2, 0.04), (0.1, 0.0), (0.3, 1.0)])
def test_against_the_formula(epsilon, beta, recorded):
    arrays = drawn()
    loss, gradient, metrics = ours(*arrays, MASK, symmetric(epsilon, beta))
    assert metrics["clip_fraction"] > 0.1
    agree(recorded, loss, gradient, lambda _: by_torch(*arrays, MASK, epsilon, beta))


REWARDS = np.array([[2.0, 0.0, 1.5], [1.0, 2.0, 1.0]], np.float32)
# How far the policy has moved: as far as each objective's clip is wide, so that some ratios are beyond it.
SPREAD = {"gspo": 1e-3}


def papers(theirs, name, logprobs, old, reference, sampler, rewards, mask, kl, beta):
    """In float64."""
    import torch

    arrays = [torch.tensor(x, dtype=torch.float64) for x in (logprobs, old, reference, sampler)]
    arrays[0].requires_grad_(True)
    rows = [[x[b, g, mask[b, g]] for b, g in np.ndindex(mask.shape[:2])] for x in arrays]
    rewards = torch.tensor(rewards, dtype=torch.float64)
    loss = theirs.objective_loss(name, *rows, rewards, mask.shape[-1], kl, beta)
    loss.backward()
    return {"loss": loss.detach(), "gradient": arrays[0].grad.numpy()}


# Without KL and with each estimator; with a sampler that computes as the trainer does, and with another.
CASES = [(kl, mismatch) for kl in ("", "k1", "k2", "k3") for mismatch in (0.0, 0.8)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_as_its_paper_writes_it(name, recorded):
    """From rewards on."""
    logprobs, old, reference, _ = drawn(spread=SPREAD.get(name, 0.4))
    noise = np.random.default_rng(9).standard_normal(old.shape)
    found, given = {}, {}
    for kl, mismatch in CASES:
        beta = 0.3 if kl else 0.0
        sampler = (old + mismatch * noise).astype(np.float32)
        objective = dataclasses.replace(OBJECTIVES[name], kl=kl or "k3", kl_coefficient=beta)
        rewards = jnp.array(REWARDS)
        if kl == "k1":
            rewards = penalised(rewards, *map(jnp.array, (old, reference, MASK)), beta)
        advantages = ADVANTAGES[objective.advantages](rewards)
        weights = truncated_importance(*map(jnp.array, (old, sampler, MASK)), 2.0)
        loss, gradient, metrics = ours(
            logprobs, old, reference if kl else None, advantages, MASK, objective, weights
        )
        assert ("kl" in metrics) == bool(kl) and (metrics["clip_fraction"] > 0) == (name != "rloo")
        assert (metrics["importance"] == 1) == (mismatch == 0) and (weights <= 2).all()
        found |= {f"loss {kl} {mismatch}": loss, f"gradient {kl} {mismatch}": gradient}
        given[f"{kl} {mismatch}"] = logprobs, old, reference, sampler, REWARDS, MASK, kl, beta

    def find(theirs):
        of = {case: papers(theirs, name, *arrays) for case, arrays in given.items()}
        return {f"{what} {case}": x for case, row in of.items() for what, x in row.items()}

    for mine, wanted in recorded(found, find):
        for key, array in wanted.items():
            # Advantages of size one cancel in a loss, entirely where every ratio is near one.
            bound = 1e-6 * (np.abs(array).max() if key.startswith("gradient") else 1)
            np.testing.assert_allclose(mine[key], array, rtol=1e-6, atol=bound, err_msg=key)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [
        (1.5, 1.0, True),
        (0.5, 1.0, False),
        (1.5, -1.0, False),
        (0.5, -1.0, True),
        (1.1, 1.0, False),
        (0.9, -1.0, False),
    ],
)
def test_the_clip_takes_away_the_gradient_of_what_goes_too_far(ratio, advantage, clipped):
    old = np.full((1, 1, 1), -1.0, np.float32)
    logprobs = old + np.float32(np.log(ratio))
    mask = np.ones((1, 1, 1), bool)
    loss, gradient, metrics = ours(
        logprobs, old, logprobs, np.full((1, 1), advantage, np.float32), mask
    )
    bound = np.clip(ratio, 0.8, 1.2)
    assert loss == pytest.approx(-advantage * (bound if clipped else ratio), rel=1e-5)
    assert gradient.item() == pytest.approx(0 if clipped else -advantage * ratio, rel=1e-5)
    assert metrics["clip_fraction"] == (abs(ratio - 1) > 0.2)
    assert metrics["ratio"] == pytest.approx(ratio, rel=1e-5)


def test_one_update_per_rollout_is_the_policy_gradient():
    """With old = policy the ratio is one, the gain the advantage, its gradient the advantage's weight."""
    logprobs, _, _, advantages = drawn()
    loss, gradient, metrics = ours(logprobs, logprobs, logprobs, advantages, MASK)
    weight = MASK / LENGTHS[..., None] / 6
    assert loss == pytest.approx(-advantages.mean(), rel=1e-5)
    np.testing.assert_allclose(gradient, -weight * advantages[..., None], rtol=1e-5)
    assert metrics["kl"] == 0 and metrics["clip_fraction"] == 0 and metrics["ratio"] == 1


def test_completions_weigh_the_same_however_long():
    arrays = (*drawn(), MASK)
    alone = [
        ours(*(x[b : b + 1, g : g + 1] for x in arrays))[0] for b in range(2) for g in range(3)
    ]
    assert ours(*arrays)[0] == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_the_mask_hides_is_never_felt(name):
    """Not even in the gradient, where 0 * nan would be nan."""
    logprobs, old, reference, advantages = drawn(spread=1e-4 if name == "gspo" else 0.4)
    objective = dataclasses.replace(OBJECTIVES[name], kl_coefficient=0.04)
    clean = ours(logprobs, old, reference, advantages, MASK, objective)
    for junk in (0.0, -1e9, np.inf, -np.inf, np.nan):
        hidden = (np.where(MASK, x, junk).astype(np.float32) for x in (logprobs, old, reference))
        loss, gradient, metrics = ours(*hidden, advantages, MASK, objective)
        assert loss == clean[0] and metrics == clean[2], junk
        np.testing.assert_array_equal(gradient, clean[1], err_msg=str(junk))
    assert not clean[1][~MASK].any() and clean[1][MASK].all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_empty_rows_count_nowhere(name):
    """The rows that pad a batch: the loss of the others is what it was without them."""
    objective = dataclasses.replace(OBJECTIVES[name], kl_coefficient=0.04)
    arrays = drawn()
    more = [np.concatenate([x, x[:1]]) for x in arrays]
    mask = np.concatenate([MASK, np.zeros_like(MASK[:1])])
    (loss, gradient, metrics), (padded, padded_gradient, padded_metrics) = (
        ours(*arrays, MASK, objective),
        ours(*more, mask, objective),
    )
    assert padded == pytest.approx(loss, rel=1e-6) and padded_metrics == pytest.approx(
        metrics, rel=1e-6
    )
    np.testing.assert_allclose(padded_gradient[:2], gradient, rtol=1e-6)
    assert not padded_gradient[2].any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_at_all(name):
    loss, gradient, metrics = ours(*drawn(), np.zeros_like(MASK), OBJECTIVES[name])
    assert loss == 0 and not gradient.any() and set(metrics.values()) == {0.0}


def test_equal_rewards_still_feel_the_kl():
    logprobs, _, reference, _ = drawn()
    _, gradient, metrics = ours(logprobs, logprobs, reference, np.zeros((2, 3), np.float32), MASK)
    assert gradient[MASK].all() and metrics["kl"] > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_losses_of_a_batchs_parts_add_up_to_its_own(name):
    arrays = (*drawn(spread=1e-3 if name == "gspo" else 0.4), MASK)
    objective = dataclasses.replace(OBJECTIVES[name], kl_coefficient=0.04)
    loss, _, metrics = ours(*arrays, objective)
    counts = {"num_completions": jnp.array(6), "num_tokens": jnp.array(LENGTHS.sum())}
    part = jax.jit(lambda *arrays: grpo_loss(objective, *arrays, **counts))
    parts = [part(*(jnp.array(x[b : b + 1]) for x in arrays)) for b in range(2)]
    assert sum(float(part) for part, _ in parts) == pytest.approx(loss, rel=1e-5)
    for key, value in metrics.items():
        assert sum(float(of[key]) for _, of in parts) == pytest.approx(value, rel=1e-5), key
