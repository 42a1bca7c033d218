import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sari_jax.errors import InputError
from sari_jax.train.config import Optimizer
from sari_jax.train.optimizer import learning_rates, make_optimizer, merge, partition

PARAMS = {
    "tower": {"kernel": jnp.ones((2, 2))},
    "decoder": {"norm": {"scale": jnp.ones(2)}, "proj": {"kernel": jnp.ones((2, 2))}},
}


def test_partition_and_merge_are_inverse():
    trainable, frozen = partition(PARAMS, ("decoder/*",))
    assert set(trainable) == {"decoder/norm/scale", "decoder/proj/kernel"}
    assert set(frozen) == {"tower/kernel"}
    assert merge(trainable, frozen) == PARAMS


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(InputError, match="'projector/\\*' matches no parameter"):
        partition(PARAMS, ("projector/*",))


def test_schedules():
    constant = learning_rates(Optimizer(learning_rate=1.0, warmup_steps=4), 10)
    assert [float(constant(i)) for i in (0, 2, 4, 9)] == [0.0, 0.5, 1.0, 1.0]
    cosine = learning_rates(Optimizer(learning_rate=1.0, schedule="cosine"), 10)
    np.testing.assert_allclose(cosine(10), 0.1, rtol=1e-5)


def test_norms_are_not_decayed():
    trainable, _ = partition(PARAMS, ("decoder/*",))
    optimizer = make_optimizer(Optimizer(learning_rate=1.0, weight_decay=0.5), 10)
    zero = {path: jnp.zeros_like(array) for path, array in trainable.items()}
    state = jax.jit(optimizer.init)(trainable)
    updates, _ = jax.jit(optimizer.update)(zero, state, trainable)
    assert float(jnp.abs(updates["decoder/norm/scale"]).max()) == 0
    np.testing.assert_allclose(updates["decoder/proj/kernel"], -0.5)


def test_adapters_decay_as_kernels_do():
    factors = {f"layers/q_proj/lora_{letter}": jnp.ones((2, 2, 2)) for letter in "ab"}
    optimizer = make_optimizer(Optimizer(learning_rate=1.0, weight_decay=0.5), 10)
    zero = {path: jnp.zeros_like(array) for path, array in factors.items()}
    _, state = optimizer.update(zero, optimizer.init(factors), factors)
    updates, _ = optimizer.update(zero, state, factors)
    for update in updates.values():
        np.testing.assert_allclose(update, -0.5)


@pytest.mark.numerics
def test_muon_orthogonalises_each_layers_matrix_and_leaves_the_rest_to_adam():
    rng = np.random.default_rng(0)
    shapes = {"layers/q_proj/kernel": (3, 8, 4), "norm/scale": (8,), "embed/embedding": (16, 8)}
    params = {path: jnp.asarray(rng.standard_normal(shape)) for path, shape in shapes.items()}
    gradient = {path: jnp.asarray(rng.standard_normal(shape)) for path, shape in shapes.items()}

    def updates(gradient):
        optimizer = make_optimizer(Optimizer(name="muon", learning_rate=0.1, clip_norm=1e9), 10)
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        return optimizer.update(gradient, state, params)[0]  # the first step has rate 0

    muon = updates(gradient)
    adam = optax.nadam(0.1, b1=0.9, b2=0.95)
    _, state = adam.update(gradient, adam.init(params))
    adams, _ = adam.update(gradient, state)
    for layer in np.asarray(muon["layers/q_proj/kernel"]):
        singular = np.linalg.svd(layer, compute_uv=False)
        assert singular.max() < 1.8 * singular.min()  # five Newton-Schulz steps come that near
        np.testing.assert_allclose(np.sqrt(np.mean(layer**2)), 0.1 * 0.2, rtol=0.3)
    for path in ("norm/scale", "embed/embedding"):
        np.testing.assert_allclose(muon[path], adams[path], rtol=1e-4)
    # A layer's update does not depend on the other layers' gradients.
    other = gradient | {"layers/q_proj/kernel": gradient["layers/q_proj/kernel"].at[0].mul(7.0)}
    np.testing.assert_allclose(
        updates(other)["layers/q_proj/kernel"][1:], muon["layers/q_proj/kernel"][1:], rtol=1e-4, atol=1e-7
    )  # fmt: skip


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_runs_that_differ_in_their_rate_are_one_program(name):
    params = {"a/kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)}
    programs, found = set(), {}
    for rate in (1e-2, 2e-2):
        optimizer = make_optimizer(Optimizer(name=name, learning_rate=rate, weight_decay=0.1), 10)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        programs.add(update.lower(params, state, params).as_text())
        _, state = update(params, state, params)  # the first step has rate 0
        found[rate] = update(params, state, params)[0]["a/kernel"]
    assert len(programs) == 1
    assert jnp.abs(found[1e-2]).max() > 1e-4
    np.testing.assert_allclose(found[2e-2], 2 * found[1e-2], rtol=1e-6)


def test_convolutions_are_left_to_adam():
    from sari_jax.train.optimizer import _matrices

    found = _matrices(
        {"tower/conv1/kernel": 0, "tower/layers/q_proj/kernel": 0, "tower/norm/scale": 0}
    )
    assert [path for path, axes in found.items() if axes] == ["tower/layers/q_proj/kernel"]


def test_narrow_moments_are_kept_narrow_and_step_nearly_alike():
    params = {"a/kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)}
    found = {}
    for dtype in ("float32", "bfloat16"):
        optimizer = make_optimizer(Optimizer(moments_dtype=dtype, learning_rate=1e-2), 10)
        state = optimizer.init(params)
        updates, state = jax.jit(optimizer.update)(params, state, params)
        kept = {x.dtype.name for x in jax.tree.leaves(state) if x.ndim}
        assert kept == {dtype}
        found[dtype] = updates["a/kernel"]
    assert found["bfloat16"].dtype == jnp.float32
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=1e-2)


# Decayed and not, in steps whose gradients are clipped and not.
SHAPES = {"a/kernel": (3, 4), "b/norm/scale": (4,), "c/embedding": (5, 3)}
STEPS = 8
SETTINGS = Optimizer(
    learning_rate=1e-2, warmup_steps=3, schedule="cosine", weight_decay=0.1, clip_norm=1.0
)


def descent(seed=0):
    """Where parameters start, and a gradient for each step."""
    rng = np.random.default_rng(seed)

    def draw(size):
        return {
            path: (size * rng.standard_normal(shape)).astype(np.float32)
            for path, shape in SHAPES.items()
        }

    return draw(0.1), [draw(size) for size in (0.01, 3.0, 0.1, 0.3, 1e-4, 1.0, 0.03, 0.1)]


def trajectory(settings):
    """By path, how far parameters are from where they started, after each step."""
    start, gradients = descent()
    optimizer = make_optimizer(settings, STEPS)

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, states = jax.tree.map(jnp.array, start), []
    state = optimizer.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
        states.append(params)
    return {path: np.stack([x[path] for x in states]) - start[path] for path in SHAPES}


def by_torch(settings):
    """In float64."""
    import torch

    start, gradients = descent()
    params = {
        path: torch.nn.Parameter(torch.tensor(x, dtype=torch.float64)) for path, x in start.items()
    }
    groups = [
        {"params": [params["a/kernel"], params["c/embedding"]]},
        {"params": [params["b/norm/scale"]], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.b1, settings.b2),
        weight_decay=settings.weight_decay,
    )
    warmup = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: step / settings.warmup_steps)
    rest = torch.optim.lr_scheduler.CosineAnnealingLR(
        adam, STEPS - settings.warmup_steps, eta_min=0.1 * settings.learning_rate
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(adam, [warmup, rest], [settings.warmup_steps])
    states = []
    for gradient in gradients:
        for path, param in params.items():
            param.grad = torch.tensor(gradient[path], dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_(params.values(), settings.clip_norm)
        adam.step()
        schedule.step()
        states.append({path: x.detach().clone() for path, x in params.items()})
    return {path: torch.stack([x[path] for x in states]).numpy() - start[path] for path in SHAPES}


def test_a_trajectory_as_pytorchs(recorded):
    """Clipping, AdamW, decay, warm-up and cosine together, over gradients that change."""
    found = trajectory(SETTINGS)
    for ours, wanted in recorded(found, lambda _: by_torch(SETTINGS)):
        assert np.abs(wanted["a/kernel"]).max() > 0.01
        for path in SHAPES:
            # Parameters near 0.3 are float32's: each step rounds by up to 3e-8.
            np.testing.assert_allclose(ours[path], wanted[path], rtol=1e-5, atol=2.5e-7)


def adam_in_float64(gradients, rate, b1, b2):
    """The sum of all updates (Kingma & Ba 2015)."""
    first = second = total = 0.0
    for step, gradient in enumerate(gradients, 1):
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        narrow = np.sqrt(second / (1 - b2**step)) + 1e-8
        total = total - rate * (first / (1 - b1**step)) / narrow
    return total


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 0.01)])
def test_moments_do_not_drift(dtype, bound):
    """Over 200 steps, of gradients with a direction and noise three times as large, that fade to a tenth."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(64)
    fading = np.linspace(1, 0.1, 200)[:, None]
    gradients = fading * (direction + 3 * rng.standard_normal((200, 64)))
    settings = Optimizer(learning_rate=1e-3, clip_norm=1e9, moments_dtype=dtype)
    optimizer = make_optimizer(settings, 200)
    start = {"a/kernel": jnp.zeros(64)}

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update({"a/kernel": gradient}, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(
        step, (start, optimizer.init(start)), jnp.array(gradients, jnp.float32)
    )
    wanted = adam_in_float64(gradients, 1e-3, settings.b1, settings.b2)
    error = np.linalg.norm(params["a/kernel"] - wanted) / np.linalg.norm(wanted)
    print(dtype, error)
    assert error < bound
