"""The updates: against an implementation in PyTorch that shares nothing with ours, and against our own with prompts
repeated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from sari_jax.data.processor import Batch, Shapes
from sari_jax.errors import InputError
from sari_jax.generate.rollout import Completions, encode
from sari_jax.hf.load import load_params
from sari_jax.models.audio_lm import bind
from sari_jax.rl.advantages import group_advantages
from sari_jax.rl.policy import reference_logprobs
from sari_jax.sft.loss import sft_loss
from sari_jax.train.config import Grpo, Optimizer
from sari_jax.train.grpo import compute_advantages
from sari_jax.train.optimizer import make_optimizer, partition
from sari_jax.train.reference import is_reference
from sari_jax.train.state import create_state
from sari_jax.train.updates import Rollout, SftPart, grpo_update, over_updates, sft_update

SETTINGS = Grpo(temperature=0.7, kl_coefficient=0.3)
QUESTIONS = [tiny.question([0.51], 9, 1), tiny.question([0.33, 0.9137], 14, 2)]
LENGTHS = (5, 3, 8, 6, 1, 7)  # of three completions each
ANSWERS = tiny.answers(LENGTHS, 4)
REWARDS = np.array([[2.0, 0.0, 1.0], [1.0, 2.0, 1.0]], np.float32)


def another(sizes, distance):
    """The reference's weights: the policy's drawn towards a stranger's."""
    policy, stranger = (tiny.weights(sizes, seed) for seed in (0, 1))
    step = np.float32(distance)
    return {name: array + step * (stranger[name] - array) for name, array in policy.items()}


# A whole stranger's exp(d) magnifies what float32 rounds past the bounds below, on some processors and not on others.
FAR = 0.3


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(0.1, id="near"),
        pytest.param(FAR, id="far", marks=pytest.mark.numerics),
    ],
)
def distance(request):
    return request.param


@functools.cache
def grpo_step(config, settings=SETTINGS):
    """One for all calls, so that another reference compiles nothing anew."""
    return functools.partial(
        grpo_update, config=config, settings=settings, optimizer=tiny.recording()
    )


@pytest.fixture(scope="module")
def reference_dir(one_tiny, distance, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reference")
    tiny.save(another(one_tiny.sizes, distance), directory, one_tiny.sizes)
    return directory


@pytest.fixture(scope="module")
def reference(one_tiny, reference_dir):
    return load_params(reference_dir, one_tiny.config)


def rollout_of(questions, answers, group) -> Rollout:
    """Given completions, whose log-probabilities by the sampler are said to be zero."""
    tokens, mask = (x.reshape(len(questions), group, 8) for x in tiny.padded(answers, 8))
    lengths, ended = jnp.array(mask.sum(-1), jnp.int32), jnp.ones(mask.shape[:2], bool)
    done = Completions(jnp.array(tokens), jnp.zeros(tokens.shape), lengths, ended)
    return Rollout(tiny.prompts(questions), done)


def scores(model, params, rollout, temperature=SETTINGS.temperature):
    given = rollout.prompts, rollout.completions.tokens, rollout.features
    return reference_logprobs(model.config, params, *given, temperature=temperature)


def stepped(model, step, rollout):
    """(loss, metrics, gradient) of one step."""
    trainable, frozen = partition(jax.tree.map(jnp.copy, model.params), ("*",))
    state, metrics = step(create_state(trainable, tiny.recording()), frozen, rollout)
    return jax.device_get((metrics["loss"], metrics, state.opt_state))


def update(model, reference, questions, answers, advantages, group):
    """(loss, metrics, gradient) of `grpo_update`, as the stage calls it."""
    rollout = rollout_of(questions, answers, group)
    rollout = rollout._replace(
        reference=scores(model, reference, rollout),
        advantages=advantages,
        unmoved=is_reference(tiny.flatten(reference), tiny.flatten(model.params)),
    )
    return stepped(model, grpo_step(model.config), rollout)


@pytest.fixture(scope="module")
def shared(one_tiny, reference):
    advantages = group_advantages(jnp.array(REWARDS))
    return update(one_tiny, reference, QUESTIONS, ANSWERS, advantages, 3)


def by_torch(theirs, model, reference_dir):
    """(loss, kl, gradient), every completion after its own copy of prompt and sound."""
    import torch

    def logprobs(directory):
        network = theirs.opened(directory, model.sizes)
        repeated = [question for question in QUESTIONS for _ in range(3)]
        rows = theirs.completion_scores(
            network, model.sizes, repeated, ANSWERS, SETTINGS.temperature
        )
        return [chosen for _, chosen in rows]

    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    sequences, divergences = [], []
    with torch.no_grad():
        kept = logprobs(reference_dir)
    for new, ref, advantage in zip(
        logprobs(model.directory), kept, advantages.flatten(), strict=True
    ):
        ratio = torch.exp(new - new.detach())
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        k3 = torch.exp(ref - new) - (ref - new) - 1
        sequences.append((gain - SETTINGS.kl_coefficient * k3).mean())
        divergences.append(k3.detach())
    loss = -torch.stack(sequences).mean()
    kl = torch.cat(divergences).mean()
    return {"loss": loss.detach(), "kl": kl, **theirs.gradients(model, loss)}


@pytest.mark.numerics
def test_grpo_as_an_independent_implementation(one_tiny, reference_dir, shared, recorded):
    loss, metrics, gradient = shared
    found = {"loss": loss, "kl": metrics["kl"], **gradient}
    for ours, wanted in recorded(found, lambda theirs: by_torch(theirs, one_tiny, reference_dir)):
        for name in ("loss", "kl"):
            assert float(ours.pop(name)) == pytest.approx(float(wanted.pop(name)), rel=1e-5)
        tiny.assert_close(ours, wanted, 1e-5)


MOVED = 0.02  # of the way to a stranger: how far the policy is from the one that sampled
OLD_REFERENCE = 0.1
RELATIVES = ("dr_grpo", "dapo", "gspo", "rloo")


@pytest.fixture(scope="module")
def older(one_tiny, tmp_path_factory):
    """Directories and parameters of the policy that sampled, and of a reference."""
    found = []
    for distance in (MOVED, OLD_REFERENCE):
        directory = tmp_path_factory.mktemp("older")
        tiny.save(another(one_tiny.sizes, distance), directory, one_tiny.sizes)
        found.append((directory, load_params(directory, one_tiny.config)))
    return found


def relative(model, older, name, **settings):
    """Settings and rollout of an objective, from rewards on."""
    settings = dataclasses.replace(
        SETTINGS, objective=name, kl_coefficient=0.3 if name == "rloo" else 0.0, **settings
    )
    (_, sampled_by), (_, reference) = older
    rollout = rollout_of(QUESTIONS, ANSWERS, 3)
    old = scores(model, sampled_by, rollout)
    kept = scores(model, reference, rollout) if settings.uses_reference else None
    rollout = rollout._replace(reference=kept, old=old)
    objective = settings.resolved_objective
    mask = rollout.completions.mask
    advantages = compute_advantages(jnp.array(REWARDS), mask, old, kept, objective=objective)
    rollout = rollout._replace(advantages=advantages)
    done = rollout.completions.replace(logprobs=old)
    return settings, rollout._replace(completions=done)


@pytest.mark.numerics
@pytest.mark.parametrize("name", RELATIVES)
def test_grpos_relatives_as_independent_implementations(name, one_tiny, older, recorded):
    """After an update: the policy is no longer the one that sampled, and some ratios are beyond the clip."""
    settings, rollout = relative(one_tiny, older, name)
    loss, metrics, gradient = stepped(one_tiny, grpo_step(one_tiny.config, settings), rollout)
    assert abs(metrics["ratio"] - 1) > 1e-4 and (metrics["clip_fraction"] > 0) == (name != "rloo")

    def find(theirs):
        import torch

        def logprobs(directory):
            repeated = [question for question in QUESTIONS for _ in range(3)]
            network = theirs.opened(directory, one_tiny.sizes)
            given = network, one_tiny.sizes, repeated, ANSWERS, settings.temperature
            return [chosen for _, chosen in theirs.completion_scores(*given)]

        with torch.no_grad():
            old, reference = (logprobs(directory) for directory, _ in older)
        rewards = torch.tensor(REWARDS, dtype=torch.float64)
        kl = "k1" if name == "rloo" else ""
        new = logprobs(one_tiny.directory)
        loss = theirs.objective_loss(name, new, old, reference, old, rewards, 8, kl, 0.3)
        return {"loss": loss.detach(), **theirs.gradients(one_tiny, loss)}

    for ours, wanted in recorded({"loss": loss, **gradient}, find):
        assert float(ours.pop("loss")) == pytest.approx(
            float(wanted.pop("loss")), rel=1e-5, abs=1e-6
        )
        tiny.assert_close(ours, wanted, 1e-5)


@pytest.mark.numerics
@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo"])
def test_updates_on_one_rollout_are_updates_one_after_the_other(name, one_tiny, older):
    """The first is the single update of a policy that sampled by itself, to float32's rounding; the second is not."""
    settings, rollout = relative(one_tiny, older, name)
    old = scores(one_tiny, one_tiny.params, rollout)
    rollout = rollout._replace(old=old)
    optimizer = optax.adam(1e-3)

    def run(settings, *rollouts):
        trainable, frozen = partition(jax.tree.map(jnp.copy, one_tiny.params), ("*",))
        state, rows = create_state(trainable, optimizer), []
        step = functools.partial(
            grpo_update, config=one_tiny.config, settings=settings, optimizer=optimizer
        )
        for rollout in rollouts:
            state, metrics = step(state, frozen, rollout)
            rows.append(metrics)
        return jax.device_get((state, rows))

    (alone, [single]) = run(settings, rollout._replace(old=None))
    (first, [given]) = run(settings, rollout)
    for name, value in single.items():
        assert given[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert given["ratio"] == pytest.approx(1, abs=1e-6) and given["clip_fraction"] == 0
    moments = [state.opt_state[0].mu for state in (alone, first)]
    tiny.assert_close(*moments, 1e-5)

    (apart, rows) = run(settings, rollout, rollout)
    assert abs(rows[1]["ratio"] - 1) > 1e-4 and apart.step == 2
    twice = dataclasses.replace(settings, updates_per_rollout=2)
    (together, [metrics]) = run(twice, rollout)
    assert together.step == 1 and metrics["skipped"] == 0
    expected = over_updates(jax.tree.map(lambda *x: jnp.stack(x), *rows))
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    moments = [state.opt_state[0].mu for state in (together, apart)]
    tiny.assert_close(*moments, 1e-4)


def test_metrics_of_several_updates():
    rows = {"loss": [1.0, 3.0], "sampler_gap": [0.5, 2.0], "skipped": [0.0, 1.0]}
    found = over_updates({name: jnp.array(values) for name, values in rows.items()})
    assert found == {"loss": 2.0, "sampler_gap": 0.5, "skipped": 1.0}


@pytest.mark.numerics
def test_a_shared_prompt_as_a_repeated_one(one_tiny, distance, reference, shared):
    """G completions off one prompt, or G rows of one completion each: the same update."""
    repeated = [question for question in QUESTIONS for _ in range(3)]
    advantages = group_advantages(jnp.array(REWARDS)).reshape(6, 1)
    loss, metrics, gradient = update(one_tiny, reference, repeated, ANSWERS, advantages, 1)
    # Far away the loss is near 9, where one step of float32 is 1e-6: there the bound is relative.
    bound = {"rel": 1e-6, "abs": 0} if distance == FAR else {"abs": 1e-6, "rel": 0}
    assert float(loss) == pytest.approx(float(shared[0]), **bound)
    tiny.assert_close(shared[2], gradient, 1e-5)
    for name in ("kl", "entropy", "ratio", "sampler_gap"):
        assert metrics[name] == pytest.approx(shared[1][name], rel=1e-5)


def test_metrics_of_a_grpo_step(shared):
    loss, metrics, gradient = shared
    assert metrics["ratio"] == 1 and metrics["clip_fraction"] == 0
    assert 0 < metrics["entropy"] < np.log(tiny.VOCABULARY)
    assert metrics["sampler_gap"] > 1  # the sampler's are given as zero here
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_a_policy_that_is_the_reference_feels_no_kl_however_its_scores_are_rounded(
    one_tiny, reference, shared
):
    """And so nothing at all, where no reward differs."""
    rollout = rollout_of(QUESTIONS, ANSWERS, 3)
    kept = scores(
        one_tiny, reference, rollout
    )  # as far away as rounding would ever be, and farther
    rollout = rollout._replace(reference=kept, advantages=jnp.zeros((2, 3)))
    step = grpo_step(one_tiny.config)
    _, metrics, gradient = stepped(one_tiny, step, rollout._replace(unmoved=jnp.array(False)))
    assert metrics["kl"] > 0 and metrics["gradient_norm"] > 0
    loss, metrics, gradient = stepped(one_tiny, step, rollout._replace(unmoved=jnp.array(True)))
    assert loss == metrics["kl"] == metrics["gradient_norm"] == 0
    assert not any(array.any() for array in gradient.values())


def narrowed(model, dtype):
    """The model with parameters and activations in this dtype."""
    params = jax.tree.map(lambda x: x.astype(dtype), model.params)
    config = dataclasses.replace(model.config, dtype=dtype)
    return dataclasses.replace(model, config=config, params=params)


@pytest.mark.numerics
@pytest.mark.parametrize(("dtype", "updates"), [("float32", 1), ("bfloat16", 2)])
def test_rounding_moves_no_policy_off_its_reference(dtype, updates, one_tiny):
    """The reference's scores are by other programs than the update's, whose batch is in two parts; and rounded more."""
    model, optimizer = narrowed(one_tiny, dtype), make_optimizer(Optimizer(learning_rate=1e-2), 10)
    settings = Grpo(num_completions=3, kl_coefficient=0.04, updates_per_rollout=updates)
    step = functools.partial(
        grpo_update, config=model.config, settings=settings, optimizer=optimizer, micro_batches=2
    )
    rollout = rollout_of(QUESTIONS, ANSWERS, 3)
    rollout = rollout._replace(features=encode(model.config, model.params, rollout.prompts))
    kept = scores(model, model.params, rollout, 1.0)
    noise = 1e-5 * np.random.default_rng(0).standard_normal(kept.shape).astype(np.float32)

    def run(unmoved, rewards):
        learns = partition(jax.tree.map(jnp.copy, model.params), ("projector/*", "decoder/*"))
        before = jax.device_get(learns[0])
        given = rollout._replace(
            reference=kept + noise,
            old=kept if settings.needs_old_logprobs else None,
            advantages=rewards,
            unmoved=unmoved,
        )
        state, metrics = step(create_state(learns[0], optimizer), learns[1], given)
        after = jax.device_get(state.params)
        return metrics, any(x.tobytes() != after[path].tobytes() for path, x in before.items())

    flat = tiny.flatten(model.params)
    same, none = is_reference(flat, flat), jnp.zeros((2, 3))
    metrics, changed = run(same, none)
    assert not changed
    for name in ("loss", "kl", "gradient_norm", "update_norm"):
        assert metrics[name] == 0, name
    # Adam makes full steps of rounding errors.
    metrics, changed = run(~same, none)
    assert changed and metrics["update_norm"] > 0.1
    # After an update that moves it the policy is another, and feels the KL.
    metrics, changed = run(same, jnp.array(REWARDS) - 1)
    assert changed and metrics["update_norm"] > 0.1 and (metrics["kl"] > 0) == (updates == 2)


@pytest.mark.numerics
def test_groups_of_completions_of_one_token(one_tiny):
    """One prompt of two: the gradient is the policy gradient's, by hand."""
    [question], answers = QUESTIONS[:1], tiny.answers((1, 1), 4)
    rollout = rollout_of([question], answers, 2)
    short = rollout.completions
    short = short.replace(tokens=short.tokens[..., :1], logprobs=short.logprobs[..., :1])
    settings = Grpo(num_completions=2, max_tokens=1, kl_coefficient=0.0)
    advantages = jnp.array([[1.0, -1.0]])
    rollout = rollout._replace(completions=short, advantages=advantages)
    loss, metrics, gradient = stepped(one_tiny, grpo_step(one_tiny.config, settings), rollout)

    @jax.jit
    @jax.grad
    def by_hand(params):
        model = bind(one_tiny.config, params)
        scored = jax.nn.log_softmax(
            model.prompt_logits(rollout.prompts)[0, len(question.tokens) - 1]
        )
        return -(scored[answers[0][0]] - scored[answers[1][0]]) / 2

    assert loss == 0 and metrics["ratio"] == 1 and metrics["gradient_norm"] > 0
    tiny.assert_close(gradient, tiny.flatten(by_hand(one_tiny.params)), 1e-5)


@pytest.mark.numerics
def test_sft_step_is_its_loss_gradient(one_tiny):
    """Of what is trained, and of nothing else; with the tower's features given, as a run with a frozen tower does."""
    prompts = tiny.prompts(QUESTIONS)
    ids, mask = (jnp.array(x)[:, None] for x in tiny.padded(ANSWERS[:2], 8))
    trainable, frozen = partition(jax.tree.map(jnp.copy, one_tiny.params), ("projector/*",))
    features = bind(one_tiny.config, one_tiny.params).encode(prompts)

    def loss(projector):
        params = {**one_tiny.params, "projector": projector}
        return sft_loss(bind(one_tiny.config, params), prompts, ids, mask, features)[0]

    expected, gradient = jax.jit(jax.value_and_grad(loss))(one_tiny.params["projector"])
    optimizer = tiny.recording()
    state, metrics = sft_update(
        create_state(trainable, optimizer),
        frozen,
        [SftPart(prompts, ids, mask, features)],
        config=one_tiny.config,
        optimizer=optimizer,
    )
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-6) and state.step == 1
    assert set(state.opt_state) == {"projector/kernel", "projector/bias"}
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(
            state.opt_state[f"projector/{name}"], gradient[name], rtol=1e-5, atol=1e-8
        )


@pytest.mark.numerics
def test_the_losses_of_a_batchs_parts_add_up_to_its_own(one_tiny):
    """Short rows beside short rows, in shapes of their own; that gradients do so too, the eight devices show below."""
    clips = ((0.9, 0.2), (0.5, 0.1), (0.3, 0.4), (0.1, 0.8))
    questions = [tiny.question(seconds, 9, i) for i, seconds in enumerate(clips)]
    ids, mask = (x[:, None] for x in tiny.padded(tiny.answers([20, 3, 18, 2]), 32))
    prompts = jax.device_get(tiny.prompts(questions))
    batch = Batch(
        prompts=prompts,
        indices=np.arange(4),
        records=(),
        answers=ids,
        answer_mask=mask.astype(bool),
    )
    loss = jax.jit(
        lambda part, tokens: sft_loss(bind(one_tiny.config, one_tiny.params), *part, tokens)[0]
    )

    def total(parts):
        return sum(
            float(loss(SftPart(part.prompts, part.answers, part.answer_mask), jnp.array(43)))
            for part in parts
        )

    parts = batch.parts(
        2,
        Shapes(
            prompt_tokens=(24, 29, 40),
            answer_tokens=(4, 24, 32),
            audio_seconds=(0.7, 1.0),
            audios=(2,),
        ),
    )
    assert [part.indices.tolist() for part in parts] == [[1, 2], [3, 0]]
    small, large = (part.prompts for part in parts)
    assert small.tokens.shape[1] < large.tokens.shape[1]
    assert (small.waveforms.shape[-1], large.waveforms.shape[-1]) == (11_520, 16_000)
    assert total(parts) == pytest.approx(total([batch]), rel=1e-6)
    with pytest.raises(InputError, match="micro_batches = 3 does not divide 4 rows"):
        batch.parts(3, Shapes())


def test_the_dtype_of_activations_is_the_configs(one_tiny):
    half = dataclasses.replace(one_tiny.config, dtype="bfloat16")
    hidden = jax.eval_shape(
        lambda params, prompts: bind(half, params).hidden(prompts, jnp.zeros((2, 1, 4), jnp.int32)),
        one_tiny.params,
        tiny.prompts(QUESTIONS),
    )
    assert hidden.dtype == jnp.bfloat16
