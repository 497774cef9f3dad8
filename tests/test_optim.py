"""Oracles: LARS and SGD written out in float64 NumPy, torch's SGD and AdamW, values by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import optim

WARMUP, TOTAL, PEAK = 3, 12, 0.7


def make(name, **changes):
    settings = {
        "lr": PEAK,
        "lr_rule": "constant",
        "batch_size": 64,
        "warmup_steps": WARMUP,
        "total_steps": TOTAL,
        "weight_decay": 0.05,
    }
    return optim.make(name, **(settings | changes))


def rate(step):
    """The schedule in float64."""
    if step < WARMUP:
        return PEAK * step / WARMUP
    return PEAK * 0.5 * (1 + np.cos(np.pi * (step - WARMUP) / (TOTAL - WARMUP)))


@pytest.fixture
def problem():
    """Parameters and the gradients of ten steps; `zero` is a kernel of norm 0."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,), "scale": (4,), "zero": (2, 2), "conv": (3, 3, 2, 2)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    params["zero"] *= 0
    grads = [{n: rng.normal(size=s) for n, s in shapes.items()} for _ in range(10)]
    return params, grads


def run(tx, params, grads):
    """All iterates that `tx` visits."""
    to_float32 = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    params, visited = to_float32(params), []
    state = tx.init(params)

    @jax.jit
    def update(grad, state, params):
        updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    for grad in grads:
        params, state = update(to_float32(grad), state, params)
        visited.append(params)
    return visited


def assert_close(got, want, atol=1e-6):
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-6, atol=atol, err_msg=name)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_is_simclrs(problem, nesterov):
    params, grads = problem
    tx, _ = make("lars", nesterov=nesterov, trust_coefficient=0.02)
    visited = run(tx, params, grads)
    buffers = {name: np.zeros_like(p) for name, p in params.items()}
    for step, grad in enumerate(grads):
        for name, p in params.items():
            g = grad[name]
            if p.ndim > 1:
                g = g + 0.05 * p
                norms = np.linalg.norm(p), np.linalg.norm(g)
                g = g * (0.02 * norms[0] / norms[1] if all(norms) else 1.0)
            scaled = rate(step) * g
            buffers[name] = 0.9 * buffers[name] + scaled
            update = 0.9 * buffers[name] + scaled if nesterov else buffers[name]
            params = params | {name: p - update}
        assert_close(visited[step], params)


def test_lars_keeps_the_learning_rate_inside_the_buffer(problem):
    """The other order, buffer times rate, differs by far more than the test's tolerance."""
    params, grads = problem
    bias, buffer = params["bias"], np.zeros(4)
    for step, grad in enumerate(grads):
        buffer = 0.9 * buffer + grad["bias"]
        bias = bias - rate(step) * buffer
    got = run(make("lars")[0], params, grads)[-1]["bias"]
    assert np.abs(got - bias).max() > 0.05


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(problem, nesterov):
    torch = pytest.importorskip("torch")
    options = {"momentum": 0.9, "nesterov": nesterov}
    visited = run(make("sgd", nesterov=nesterov)[0], *problem)
    _compare_with_torch(torch, torch.optim.SGD, options, problem, visited)


def test_sgd_matches_numpy(problem):
    params, grads = problem
    visited = run(make("sgd", momentum=0.8, warmup_steps=0)[0], params, grads)
    buffers = {name: np.zeros_like(p) for name, p in params.items()}
    for step, grad in enumerate(grads):
        lr = PEAK * 0.5 * (1 + np.cos(np.pi * step / TOTAL))
        for name, p in params.items():
            g = grad[name] + 0.05 * p * (p.ndim > 1)
            buffers[name] = 0.8 * buffers[name] + g
            params = params | {name: p - lr * buffers[name]}
        assert_close(visited[step], params, atol=2e-6)


def test_adamw_is_torchs(problem):
    torch = pytest.importorskip("torch")
    visited = run(make("adamw", b2=0.95)[0], *problem)
    _compare_with_torch(torch, torch.optim.AdamW, {"betas": (0.9, 0.95)}, problem, visited)


def _compare_with_torch(torch, optimizer, options, problem, visited):
    params, grads = problem
    tensors = {n: torch.nn.Parameter(torch.tensor(p)) for n, p in params.items()}
    groups = [
        {"params": [t for t in tensors.values() if t.ndim > 1], "weight_decay": 0.05},
        {"params": [t for t in tensors.values() if t.ndim <= 1], "weight_decay": 0.0},
    ]
    reference = optimizer(groups, lr=1.0, **options)
    for step, grad in enumerate(grads):
        # torch's SGD starts its buffer at the first gradient and AdamW counts every step, so the
        # zero rate of step 0 passes through both as it does through optax.
        for group in reference.param_groups:
            group["lr"] = rate(step)
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(grad[name])
        reference.step()
        assert_close(visited[step], {n: t.detach().numpy() for n, t in tensors.items()}, 5e-6)


def test_schedule_by_hand():
    lr = optim.schedule(4.8, 4, 12)
    # Warm-up 0, 1/4, 1/2, 3/4; then half a cosine over 8 steps: cos(pi/4) and so on.
    want = {0: 0, 1: 1.2, 2: 2.4, 3: 3.6, 4: 4.8, 6: 2.4 * (1 + 2**-0.5), 8: 2.4, 12: 0, 99: 0}
    for step, value in want.items():
        assert float(lr(step)) == pytest.approx(value, abs=1e-6)
    assert float(jax.jit(lr)(jnp.int32(3))) == pytest.approx(3.6)
    assert lr(jnp.int32(3)).dtype == jnp.float32


def test_schedule_without_warmup_starts_at_the_peak():
    assert float(optim.schedule(2.0, 0, 10)(0)) == 2.0
    assert float(optim.schedule(2.0, 10, 10)(9)) == pytest.approx(1.8)
    with pytest.raises(ValueError, match="11 steps of warm-up do not fit into 10"):
        optim.schedule(2.0, 11, 10)


def test_schedule_is_optaxs():
    steps = jnp.arange(101)
    theirs = jax.vmap(optax.warmup_cosine_decay_schedule(0.0, 1.3, 7, 100))(steps)
    np.testing.assert_allclose(jax.vmap(optim.schedule(1.3, 7, 100))(steps), theirs, atol=1e-6)


def test_learning_rate_rules():
    assert optim.learning_rate(0.3, "linear", 4096) == pytest.approx(4.8, rel=1e-12)
    assert optim.learning_rate(0.075, "sqrt", 4096) == pytest.approx(4.8, rel=1e-12)
    assert optim.learning_rate(0.03, "constant", 4096) == 0.03
    assert optim.learning_rate(0.3, "linear", 512) == pytest.approx(0.6)
    assert optim.learning_rate(0.075, "sqrt", 256) == pytest.approx(1.2)


def test_unknown_names_list_what_exists():
    with pytest.raises(ValueError, match=r"'adam'; there are: adamw, lars, sgd"):
        make("adam")
    with pytest.raises(ValueError, match=r"'cubic'; there are: constant, linear, sqrt"):
        make("sgd", lr_rule="cubic")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), use_bias=False)(x))
        return nn.Dense(5)(x.mean((1, 2)))


NET_SIZES = {"conv": 3 * 3 * 3 * 8, "bn": 2 * 8, "dense": 8 * 5, "dense_bias": 5}


@pytest.fixture(scope="module")
def net_params():
    shapes = jax.eval_shape(lambda: Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    return jax.tree.map(lambda s: np.ones(s.shape, np.float32), shapes["params"])


def test_masks_on_real_names(net_params):
    assert optim.is_weight(net_params) == {
        "Conv_0": {"kernel": True},
        "BatchNorm_0": {"scale": False, "bias": False},
        "Dense_0": {"kernel": True, "bias": False},
    }


@pytest.mark.parametrize("name", optim.NAMES)
def test_a_zero_gradient_moves_only_what_is_decayed(name, net_params):
    tx, _ = make(name, warmup_steps=0, weight_decay=0.1)
    zeros = jax.tree.map(np.zeros_like, net_params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(net_params), net_params)
    moved = jax.tree.map(lambda u: bool(np.any(u != 0)), updates)
    assert moved == optim.is_weight(net_params)


def test_table(net_params):
    text = optim.table(jax.eval_shape(lambda: net_params), "lars", 1e-6).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in text}
    assert cells["Conv_0/kernel"] == ["3x3x3x8", "216", "yes", "yes"]
    assert cells["BatchNorm_0/scale"] == ["8", "8", "-", "-"]
    assert cells["Dense_0/bias"] == ["5", "5", "-", "-"]
    weights = NET_SIZES["conv"] + NET_SIZES["dense"]
    assert text[-1].split() == [
        "total", "(5)", str(sum(NET_SIZES.values())), str(weights), str(weights),
    ]  # fmt: skip
    assert len({len(line) for line in text}) == 1


def test_table_says_what_an_optimizer_does_not_do(net_params):
    last = lambda *args: optim.table(net_params, *args).splitlines()[-1].split()[-2:]  # noqa: E731
    assert last("sgd", 1e-4) == ["256", "0"]
    assert last("lars", 0.0) == ["0", "256"]
