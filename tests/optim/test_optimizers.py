"""Optimizers and schedules against float64 NumPy, torch, optax and hand-worked values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from written_out import PEAK, TOTAL, assert_close, decay, make, rate, run

from ssl_jax import optim
from ssl_jax.optim import optimizers


@pytest.mark.parametrize("lr_in_momentum", [True, False])
@pytest.mark.parametrize(("nesterov", "end"), [(False, None), (True, 0.4)])
def test_lars_matches_numpy(problem, lr_in_momentum, nesterov, end):
    """lr_in_momentum is SimCLR's `lars_optimizer.py`; otherwise the order of BYOL and MoCo v3."""
    params, grads = problem
    tx, _ = make(
        "lars", nesterov=nesterov, trust_coefficient=0.02, lr_in_momentum=lr_in_momentum,
        weight_decay_end=end,
    )  # fmt: skip
    visited = run(tx, params, grads)
    buffers = {name: np.zeros_like(p) for name, p in params.items()}
    for step, grad in enumerate(grads):
        for name, p in params.items():
            g = grad[name]
            if p.ndim > 1:
                g = g + decay(step, end) * p
                norms = np.linalg.norm(p), np.linalg.norm(g)
                g = g * (0.02 * norms[0] / norms[1] if all(norms) else 1.0)
            before, after = (rate(step), 1.0) if lr_in_momentum else (1.0, rate(step))
            buffers[name] = 0.9 * buffers[name] + before * g
            update = 0.9 * buffers[name] + before * g if nesterov else buffers[name]
            params = params | {name: p - after * update}
        assert_close(visited[step], params)


@pytest.mark.parametrize("lr_in_momentum", [True, False])
def test_clipped_trust_ratio_matches_the_rule_of_solo_learn(problem, lr_in_momentum):
    """Without decay. With decay, solo-learn adds the norms of gradient and decay; we add first.

    solo-learn scales the momentum buffer by the rate; with lr_in_momentum we scale its terms.
    """
    params, grads = problem[0], problem[1][:5]
    for grad in grads:
        grad["conv"] = 1e-3 * grad["conv"]  # a small gradient: the limit applies
    tx, _ = make(
        "lars", trust_coefficient=0.02, trust_clip=True, weight_decay=0.0,
        lr_in_momentum=lr_in_momentum,
    )  # fmt: skip
    visited = run(tx, params, grads)
    buffers = {name: np.zeros_like(p) for name, p in params.items()}
    limited = set()
    for step, grad in enumerate(grads):
        lr = rate(step)
        for name, p in params.items():
            g = grad[name]
            norms = np.linalg.norm(p), np.linalg.norm(g)
            if p.ndim > 1 and all(norms):
                ratio = 0.02 * norms[0] / norms[1]
                limited.add((name, ratio >= lr))
                g = g * (ratio / lr if ratio < lr else 1.0)
            before, after = (lr, 1.0) if lr_in_momentum else (1.0, lr)
            buffers[name] = 0.9 * buffers[name] + before * g
            params = params | {name: p - after * buffers[name]}
        assert_close(visited[step], params)
    # The rate of step 0 is 0, which always limits.
    # `zero` moves in step 1, by the gradient alone.
    assert limited == {("conv", True), ("kernel", True), ("kernel", False), ("zero", False)}


def test_clipped_trust_ratio_bounds_the_update_and_is_free_of_the_rate():
    rng = np.random.default_rng(1)
    params = {"w": np.float32(rng.normal(size=(5, 4)))}
    length = np.linalg.norm(params["w"])

    def update(lr, scale):
        grads = {"w": np.float32(scale * rng.normal(size=(5, 4)))}
        tx, _ = make(
            "lars", lr=lr, warmup_steps=0, momentum=0.0, weight_decay=0.0, trust_coefficient=0.02,
            trust_clip=True,
        )  # fmt: skip
        updates, _ = tx.update(grads, tx.init(params), params)
        return np.linalg.norm(updates["w"]), lr * np.linalg.norm(grads["w"])

    for lr in (0.1, 1.0, 10.0):
        moved, by_sgd = update(lr, scale=1.0)
        assert moved == pytest.approx(0.02 * length, rel=1e-5)
        assert moved < by_sgd
        moved, by_sgd = update(lr, scale=1e-6)
        assert moved == pytest.approx(by_sgd, rel=1e-5)
        assert moved < 0.02 * length


@pytest.mark.parametrize(("decay_all", "adapt_all"), [(True, True), (True, False), (False, True)])
def test_lars_of_all_parameters_matches_numpy(problem, decay_all, adapt_all):
    params, grads = problem
    params["bias"] *= 0  # a bias that starts at 0 is first scaled by 1
    tx, _ = make("lars", decay_all=decay_all, adapt_all=adapt_all, warmup_steps=0, momentum=0.0)
    visited = run(tx, params, grads)
    for step, grad in enumerate(grads):
        lr = PEAK * 0.5 * (1 + np.cos(np.pi * step / TOTAL))
        for name, p in params.items():
            g = grad[name] + 0.05 * p * (decay_all or p.ndim > 1)
            norms = np.linalg.norm(p), np.linalg.norm(g)
            if (adapt_all or p.ndim > 1) and all(norms):
                g = g * 0.001 * norms[0] / norms[1]
            params = params | {name: p - lr * g}
        assert_close(visited[step], params)


def test_lars_order_of_rate_and_momentum_matters_only_while_the_rate_changes(problem):
    kernel = lambda tree: {"kernel": tree["kernel"]}  # noqa: E731
    params, grads = kernel(problem[0]), [kernel(grad) for grad in problem[1]]

    def difference(**changes):
        inside = run(make("lars", lr_in_momentum=True, **changes)[0], params, grads)[-1]["kernel"]
        after = run(make("lars", lr_in_momentum=False, **changes)[0], params, grads)[-1]["kernel"]
        return float(np.abs(inside - after).max() / np.abs(inside).max())

    assert difference(trust_coefficient=1.0) > 0.05
    assert difference(trust_coefficient=1.0, schedule="constant") > 0.05  # during the warm-up
    assert difference(trust_coefficient=1.0, schedule="constant", warmup_steps=0) < 1e-6


def test_lars_equals_optax(problem):
    params, grads = problem
    ours, schedule = make("lars")
    theirs = optax.lars(
        schedule,
        0.05,
        weight_decay_mask=optimizers.is_weight,
        trust_ratio_mask=optimizers.is_weight,
    )
    assert jax.tree.structure(ours.init(params)) == jax.tree.structure(theirs.init(params))
    for a, b in zip(run(ours, params, grads), run(theirs, params, grads), strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_matches_torch(problem, nesterov):
    torch = pytest.importorskip("torch")
    options = {"momentum": 0.9, "nesterov": nesterov}
    visited = run(make("sgd", nesterov=nesterov)[0], *problem)
    assert_matches_torch(torch, torch.optim.SGD, options, problem, visited)


@pytest.mark.parametrize("end", [None, 0.4])
def test_sgd_matches_numpy(problem, end):
    params, grads = problem
    tx, _ = make("sgd", momentum=0.8, warmup_steps=0, weight_decay_end=end)
    visited = run(tx, params, grads)
    buffers = {name: np.zeros_like(p) for name, p in params.items()}
    for step, grad in enumerate(grads):
        lr = PEAK * 0.5 * (1 + np.cos(np.pi * step / TOTAL))
        for name, p in params.items():
            g = grad[name] + decay(step, end) * p * (p.ndim > 1)
            buffers[name] = 0.8 * buffers[name] + g
            params = params | {name: p - lr * buffers[name]}
        assert_close(visited[step], params, atol=2e-6)


@pytest.mark.parametrize("end", [None, 0.4])
def test_adamw_matches_numpy(problem, end):
    params, grads = problem
    visited = run(make("adamw", momentum=0.5, b2=0.95, weight_decay_end=end)[0], params, grads)
    first = {name: np.zeros_like(p) for name, p in params.items()}
    second = {name: np.zeros_like(p) for name, p in params.items()}
    for step, grad in enumerate(grads):
        for name, p in params.items():
            first[name] = 0.5 * first[name] + 0.5 * grad[name]
            second[name] = 0.95 * second[name] + 0.05 * grad[name] ** 2
            scale = np.sqrt(second[name] / (1 - 0.95 ** (step + 1))) + 1e-8
            adam = first[name] / (1 - 0.5 ** (step + 1)) / scale
            # Decoupled decay: only the learning rate scales it.
            decayed = decay(step, end) * p * (p.ndim > 1)
            params = params | {name: p - rate(step) * (adam + decayed)}
        assert_close(visited[step], params, atol=5e-6)


def test_adamw_matches_torch(problem):
    torch = pytest.importorskip("torch")
    visited = run(make("adamw", b2=0.95)[0], *problem)
    assert_matches_torch(torch, torch.optim.AdamW, {"betas": (0.9, 0.95)}, problem, visited)


def assert_matches_torch(torch, optimizer, options, problem, visited):
    params, grads = problem
    tensors = {n: torch.nn.Parameter(torch.tensor(p)) for n, p in params.items()}
    groups = [
        {"params": [t for t in tensors.values() if t.ndim > 1], "weight_decay": 0.05},
        {"params": [t for t in tensors.values() if t.ndim <= 1], "weight_decay": 0.0},
    ]
    reference = optimizer(groups, lr=1.0, **options)
    for step, grad in enumerate(grads):
        # torch's SGD starts its buffer at the first gradient, and AdamW counts every step. So the
        # zero rate of step 0 has the same effect on both as on optax.
        for group in reference.param_groups:
            group["lr"] = rate(step)
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(grad[name])
        reference.step()
        assert_close(visited[step], {n: t.detach().numpy() for n, t in tensors.items()}, 5e-6)


def test_cosine_schedule_matches_hand_worked_values():
    lr = optimizers.rate_schedule(4.8, 4, 12)
    # Warm-up factors 0, 1/4, 1/2, 3/4, then half a cosine over 8 steps: step 6 is at cos(pi/4).
    want = {0: 0, 1: 1.2, 2: 2.4, 3: 3.6, 4: 4.8, 6: 2.4 * (1 + 2**-0.5), 8: 2.4, 12: 0, 99: 0}
    for step, value in want.items():
        assert float(lr(step)) == pytest.approx(value, abs=1e-6)
    assert float(jax.jit(lr)(jnp.int32(3))) == pytest.approx(3.6)
    assert lr(jnp.int32(3)).dtype == jnp.float32


def test_cosine_schedule_without_warmup_starts_at_the_peak():
    assert float(optimizers.rate_schedule(2.0, 0, 10)(0)) == 2.0
    assert float(optimizers.rate_schedule(2.0, 10, 10)(9)) == pytest.approx(1.8)
    with pytest.raises(ValueError, match="11 steps of warm-up do not fit into a run of 10"):
        optimizers.rate_schedule(2.0, 11, 10)


def test_cosine_schedule_matches_optax():
    steps = jnp.arange(101)
    theirs = jax.vmap(optax.warmup_cosine_decay_schedule(0.0, 1.3, 7, 100))(steps)
    np.testing.assert_allclose(
        jax.vmap(optimizers.rate_schedule(1.3, 7, 100))(steps), theirs, atol=1e-6
    )


def test_step_schedule_matches_hand_worked_values():
    # MoCo's 200 epochs, here of 5 steps each: 0.03, times 0.1 from epoch 120 and from epoch 160.
    lr = optimizers.rate_schedule(0.03, 0, 1000, name="step")
    want = {0: 0.03, 599: 0.03, 600: 0.003, 799: 0.003, 800: 0.0003, 999: 0.0003}
    for step, value in want.items():
        assert float(jax.jit(lr)(step)) == pytest.approx(value, rel=1e-6), step
    # Ten steps with warm-up; the rate is halved three times.
    lr = optimizers.rate_schedule(8.0, 2, 10, name="step", drops=(0.3, 0.5, 0.7), drop=0.5)
    assert [float(lr(step)) for step in range(10)] == [0, 4, 8, 4, 4, 2, 2, 1, 1, 1]


def test_step_schedule_drops_at_the_same_epoch_for_any_epoch_length():
    for steps_per_epoch in range(1, 40):
        lr = optimizers.rate_schedule(1.0, 0, 200 * steps_per_epoch, name="step")
        last, first = lr(120 * steps_per_epoch - 1), lr(120 * steps_per_epoch)
        assert (float(last), float(first)) == pytest.approx((1, 0.1)), steps_per_epoch


def test_constant_schedule_stays_at_the_peak_after_warmup():
    lr = optimizers.rate_schedule(2.0, 4, 10, name="constant")
    assert [float(lr(step)) for step in (0, 1, 3, 4, 9, 99)] == [0, 0.5, 1.5, 2, 2, 2]
    assert lr(jnp.int32(3)).dtype == jnp.float32


def test_learning_rate_rules_match_published_values():
    assert optimizers.learning_rate(0.3, "linear", 4096) == pytest.approx(4.8, rel=1e-12)
    assert optimizers.learning_rate(0.075, "sqrt", 4096) == pytest.approx(4.8, rel=1e-12)
    assert optimizers.learning_rate(0.03, "constant", 4096) == 0.03
    assert optimizers.learning_rate(0.3, "linear", 512) == pytest.approx(0.6)
    assert optimizers.learning_rate(0.075, "sqrt", 256) == pytest.approx(1.2)


def test_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"'adam'; choose from adamw, lars, plain, sgd"):
        make("adam")
    with pytest.raises(ValueError, match=r"'cubic'; choose from constant, linear, sqrt"):
        make("sgd", lr_rule="cubic")
    with pytest.raises(ValueError, match=r"'square'; choose from constant, cosine, linear, step"):
        make("sgd", schedule="square")
    with pytest.raises(ValueError, match=r"\(120, 160\) must be fractions of the run"):
        make("sgd", schedule="step", drops=(120, 160))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), use_bias=False)(x))
        return nn.Dense(5)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def net_params():
    shapes = jax.eval_shape(lambda: Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    return jax.tree.map(lambda s: np.ones(s.shape, np.float32), shapes["params"])


# "plain" has a test of its own: it refuses decay and momentum.
DECAYING = [name for name in optim.NAMES if name != "plain"]


@pytest.mark.parametrize("name", DECAYING)
def test_zero_gradient_moves_only_decayed_parameters(name, net_params):
    tx, _ = make(name, warmup_steps=0, weight_decay=0.1)
    zeros = jax.tree.map(np.zeros_like, net_params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(net_params), net_params)
    moved = jax.tree.map(lambda u: bool(np.any(u != 0)), updates)
    assert moved == optimizers.is_weight(net_params)


@pytest.mark.parametrize("name", DECAYING)
def test_decay_of_all_parameters_moves_each(name, net_params):
    tx, _ = make(name, warmup_steps=0, weight_decay=0.1, decay_all=True)
    zeros = jax.tree.map(np.zeros_like, net_params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(net_params), net_params)
    if name == "lars":  # it also adapts kernels
        updates = {"BatchNorm_0": updates["BatchNorm_0"]}
        net_params = {"BatchNorm_0": net_params["BatchNorm_0"]}
    for update, p in zip(jax.tree.leaves(updates), jax.tree.leaves(net_params), strict=True):
        np.testing.assert_allclose(update, -PEAK * 0.1 * p, rtol=1e-6)


PATHS = {
    "adamw": {"0/count", "0/mu/*", "0/nu/*", "2/count"},
    "lars": {"2/count", "3/trace/*"},
    "sgd": {"1/0/trace/*", "1/1/count"},
}


@pytest.mark.parametrize("name", DECAYING)
@pytest.mark.parametrize(
    "changes",
    [
        {"clip_norm": 0.0},
        {"clip_norm": 3.0},
        {"trust_coefficient": 0.02, "decay_all": True, "adapt_all": True},
        {"turns": {}},
    ],
    ids=str,
)
def test_state_paths_match_those_in_old_checkpoints(name, changes):
    """Other paths would make old checkpoints unreadable. These fields can be changed on resume."""
    assert state_paths(make(name, **changes)[0], {"w": jnp.zeros(2)}) == PATHS[name]


def state_paths(tx, params):
    paths, _ = jax.tree_util.tree_flatten_with_path(tx.init(params))
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths}
    return {name.replace("/w", "/*") for name in names}


def test_clipped_trust_ratio_adds_its_count_to_the_state():
    paths = state_paths(make("lars", trust_clip=True)[0], {"w": jnp.zeros(2)})
    assert paths == PATHS["lars"] | {"1/inner_state/count"}


def test_plain_subtracts_the_rate_times_the_gradient_and_has_no_state_per_parameter():
    tx, schedule = optimizers.make(
        "plain", lr=0.025, lr_rule="constant", schedule="linear", batch_size=1, warmup_steps=0,
        total_steps=8, weight_decay=0.0, momentum=0.0,
    )  # fmt: skip
    params, grads = {"table": jnp.ones((3, 2))}, {"table": jnp.full((3, 2), 4.0)}
    state = tx.init(params)
    assert all(leaf.size == 1 for leaf in jax.tree.leaves(state))
    for step in range(3):
        rate = 0.025 * (1 - step / 8)
        np.testing.assert_allclose(float(schedule(step)), rate, rtol=1e-6)
        updates, state = tx.update(grads, state, params)
        np.testing.assert_allclose(updates["table"], -rate * 4, rtol=1e-6)
    np.testing.assert_allclose(float(schedule(8)), 0.025e-4, rtol=1e-5)  # word2vec.c's least rate
    with pytest.raises(ValueError, match="neither weight decay nor momentum"):
        optimizers.make(
            "plain", lr=0.1, lr_rule="constant", batch_size=1, warmup_steps=0, total_steps=8,
            weight_decay=1e-4, momentum=0.0,
        )  # fmt: skip
