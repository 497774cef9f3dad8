"""Groups with their own optimizer, frozen and delayed parameters, and clipping over all of them."""

import jax
import numpy as np
import pytest
from written_out import PEAK, TOTAL, assert_close, decay, make, rate, run

from ssl_jax.optim import turns_from

GROUPS = {
    "predictor": {"schedule": "constant", "warmup_steps": 0},
    "discriminator": {"name": "adamw", "lr": 2e-3, "momentum": 0.5, "weight_decay": 0.0},
}


def test_group_is_trained_as_if_alone_with_its_own_settings(model):
    params, grads = model
    tx, schedule = make("lars", groups=GROUPS)
    visited = run(tx, params, grads)
    for module, settings in {"encoder": {}, **GROUPS}.items():
        alone, _ = make(**{"name": "lars", **settings})
        want = run(alone, params[module], [grad[module] for grad in grads])
        for got, value in zip(visited, want, strict=True):
            jax.tree.map(np.testing.assert_array_equal, got[module], value)
    assert float(schedule(TOTAL)) == 0  # the main optimizer's schedule


def test_group_without_parameters_is_refused(model):
    params, _ = model
    tx, _ = make("sgd", groups={"predicter": {"lr": 0.1}})
    with pytest.raises(
        ValueError, match="'predicter'; the top level has: discriminator, encoder, "
    ):
        jax.eval_shape(tx.init, params)


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_frozen_parameters_do_not_change_and_have_no_state(name, model):
    params, grads = model
    frozen = ("encoder/deep/conv", "predictor")
    tx, _ = make(name, groups=GROUPS, frozen=frozen, weight_decay=0.1)
    visited = run(tx, params, grads)[-1]
    free = run(make(name, groups=GROUPS, weight_decay=0.1)[0], params, grads)[-1]
    for module, leaves in visited.items():
        for leaf, value in leaves["deep"].items():
            if f"{module}/deep/{leaf}".startswith(frozen):
                want = np.float32(params[module]["deep"][leaf])
            else:
                want = free[module]["deep"][leaf]
            np.testing.assert_array_equal(value, want, err_msg=f"{module} {leaf}")
    shapes = [leaf.shape for leaf in jax.tree.leaves(tx.init(params))]
    # The discriminator's Adam has two moments of its conv; encoder/deep/conv has no state.
    assert shapes.count((3, 3, 2, 2)) == 2


DELAY = 4


def one_step(name, p, g, buffers, count, step, end):
    """Returns a parameter after a step of AdamW or SGD in float64; `count` is its own count."""
    decayed = decay(step, end) * p * (p.ndim > 1)
    if name == "sgd":
        buffers["momentum"] = 0.9 * buffers.get("momentum", 0) + g + decayed
        return p - rate(step) * buffers["momentum"]
    buffers["mu"] = 0.9 * buffers.get("mu", 0) + 0.1 * g
    buffers["nu"] = 0.95 * buffers.get("nu", 0) + 0.05 * g**2
    scale = np.sqrt(buffers["nu"] / (1 - 0.95 ** (count + 1))) + 1e-8
    return p - rate(step) * (buffers["mu"] / (1 - 0.9 ** (count + 1)) / scale + decayed)


@pytest.mark.parametrize("end", [None, 0.4])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_delayed_parameters_start_later_at_the_rate_and_decay_of_the_run(name, end, model):
    params, grads = model
    tx, schedule = make(name, turns={"predictor": turns_from(DELAY)}, weight_decay_end=end, b2=0.95)
    visited = run(tx, params, grads)
    assert float(schedule(DELAY)) == pytest.approx(rate(DELAY))  # the logged rate
    for module in params:
        delay = DELAY if module == "predictor" else 0
        for leaf, p in params[module]["deep"].items():
            buffers = {}
            for step, grad in enumerate(grads):
                if step >= delay:
                    g = grad[module]["deep"][leaf]
                    p = one_step(name, p, g, buffers, step - delay, step, end)
                    assert_close(visited[step][module]["deep"], {leaf: p}, atol=5e-6)
                else:  # not a bit changes
                    now = visited[step][module]["deep"][leaf]
                    np.testing.assert_array_equal(now, np.float32(p))


def test_delay_leaves_the_state_of_the_optimizer_as_it_starts(model):
    params, grads = model
    tx, _ = make("adamw", turns={"predictor": turns_from(DELAY)})
    start = state = tx.init(params)
    for step, grad in enumerate(grads[: DELAY + 1]):
        own = state.inner_states["predictor"].inner_state
        assert int(own.step) == step
        first = start.inner_states["predictor"].inner_state.inner_state
        jax.tree.map(np.testing.assert_array_equal, own.inner_state, first)
        _, state = tx.update(grad, state, params)
    assert int(state.inner_states["predictor"].inner_state.inner_state[0].count) == 1
    assert int(state.inner_states["_main"].inner_state[0].count) == DELAY + 1


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_delay_holds_beside_groups_frozen_paths_and_clipping(name, model):
    """A delayed group, and a delayed module with a frozen part."""
    params, grads = model
    frozen = ("predictor/deep/conv",)
    for grad in grads[:DELAY]:  # as the method stops the gradient
        grad["predictor"] = jax.tree.map(np.zeros_like, grad["predictor"])
        grad["discriminator"] = jax.tree.map(np.zeros_like, grad["discriminator"])
    clip = 3.0
    options = {"groups": GROUPS, "frozen": frozen, "weight_decay": 0.1, "trust_clip": True}
    turns = dict.fromkeys(("predictor", "discriminator"), turns_from(DELAY))
    tx, _ = make(name, **options, clip_norm=clip, turns=turns)
    visited = run(tx, params, grads)
    clipped = []
    for grad in grads:
        trained = [g for m, tree in grad.items() for n, g in tree["deep"].items()
                   if f"{m}/deep/{n}" not in frozen]  # fmt: skip
        norm = np.sqrt(sum(np.sum(g**2) for g in trained))
        clipped.append(jax.tree.map(lambda g, norm=norm: g * min(1, clip / norm), grad))
    alone = run(make(name, **options)[0], params, clipped)
    for step in range(len(grads)):
        assert_close(visited[step]["encoder"]["deep"], alone[step]["encoder"]["deep"])
        late = visited[step]["predictor"]["deep"]
        np.testing.assert_array_equal(late["conv"], np.float32(params["predictor"]["deep"]["conv"]))
        for module in ("predictor", "discriminator"):
            kernel = visited[step][module]["deep"]["kernel"]
            still = np.array_equal(kernel, np.float32(params[module]["deep"]["kernel"]))
            assert still == (step < DELAY), (module, step)
    # The group's own schedule, a fresh start: the first AdamW update has the size of the rate.
    before, after = (visited[s]["discriminator"]["deep"]["bias"] for s in (DELAY - 1, DELAY))
    want = 2e-3 * rate(DELAY) / PEAK
    np.testing.assert_allclose(np.abs(after - before), want, rtol=2e-3)


@pytest.mark.parametrize("end", [None, 0.4])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_parameters_change_only_in_their_turns_at_the_rate_of_the_run(name, end, model):
    params, grads = model
    turns = {"predictor/deep/conv": ((2, 4), (6, 7)), "encoder": ((0, 3),)}
    tx, _ = make(name, turns=turns, weight_decay_end=end, b2=0.95)
    visited = run(tx, params, grads)
    for module in params:
        for leaf, p in params[module]["deep"].items():
            path = f"{module}/deep/{leaf}"
            own = next((t for prefix, t in turns.items() if path.startswith(prefix)), ((0, 99),))
            buffers, count = {}, 0
            for step, grad in enumerate(grads):
                now = visited[step][module]["deep"][leaf]
                if any(first <= step < last for first, last in own):
                    p = one_step(name, p, grad[module]["deep"][leaf], buffers, count, step, end)
                    count += 1
                    assert_close({leaf: now}, {leaf: p}, atol=5e-6)
                elif step:  # not a bit changes
                    np.testing.assert_array_equal(now, visited[step - 1][module]["deep"][leaf])


def test_turns_inside_a_group_keep_the_settings_of_the_group(model):
    params, grads = model
    turns = {"discriminator/deep/bias": ((0, len(grads)),)}
    groups = {"discriminator": GROUPS["discriminator"]}
    visited = run(make("sgd", groups=groups, turns=turns)[0], params, grads)
    alone = run(make("sgd", groups=groups)[0], params, grads)
    for got, want in zip(visited, alone, strict=True):
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_turn_without_parameters_is_refused(model):
    tx, _ = make("sgd", turns={"predictor/deep/cov": ((0, 3),)})
    with pytest.raises(ValueError, match="turns: no parameter under 'predictor/deep/cov'; similar"):
        jax.eval_shape(tx.init, model[0])


def test_frozen_path_without_parameters_is_refused(model):
    tx, _ = make("sgd", frozen=("encoder/deep/convv",))
    with pytest.raises(ValueError, match=r"similar paths: encoder/deep/conv, "):
        jax.eval_shape(tx.init, model[0])


@pytest.mark.parametrize("clip", [1e-3, 3.0, 1e3])
def test_clipping_uses_the_norm_over_all_trained_parameters(clip, model):
    params, grads = model
    grads[0]["encoder"]["deep"]["conv"] = np.full((3, 3, 2, 2), 1e9)  # frozen, not counted
    groups = {"discriminator": {"lr": 0.01}}
    tx, _ = make(
        "sgd", groups=groups, frozen=("encoder/deep/conv",), clip_norm=clip, momentum=0.0,
        weight_decay=0.0, schedule="constant", warmup_steps=0,
    )  # fmt: skip
    visited = run(tx, params, grads[:1])[0]
    trained = [g for m in grads[0].values() for g in m["deep"].values() if g.max() < 1e9]
    norm = np.sqrt(sum(np.sum(g**2) for g in trained))
    assert 3 < norm < 1e3
    for module, lr in {"encoder": PEAK, "predictor": PEAK, "discriminator": 0.01}.items():
        want = {
            name: p - lr * min(1, clip / norm) * grads[0][module]["deep"][name]
            for name, p in params[module]["deep"].items()
        }
        if module == "encoder":
            want["conv"] = params["encoder"]["deep"]["conv"]
        assert_close(visited[module]["deep"], want)
