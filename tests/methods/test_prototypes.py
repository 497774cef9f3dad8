"""The frozen prototypes of SwAV and DINO: the optimizer skips them, in the right steps."""

import jax
import linear
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, dino, swav
from ssl_jax.methods._prototypes import freeze_steps
from ssl_jax.optim import optimizers

B, STEPS = 4, 6
RUN = Run(tiny.seen(2, 2), STEPS, B, num_examples=10)  # 2.5 steps in an epoch
MAKERS = {
    "swav": lambda **fields: swav.make(
        linear.Linear(), RUN, prototypes=5, hidden_dim=6, output_dim=3, **fields
    ),
    "dino": lambda **fields: dino.make(
        linear.Linear(), RUN, prototypes=5, hidden_dim=6, bottleneck_dim=3, **fields
    ),
}


def train(method, name="adamw"):
    tx, _ = optimizers.make(
        name, lr=0.1, lr_rule="constant", batch_size=B, warmup_steps=0, total_steps=STEPS,
        weight_decay=0.5, turns=method.turns,
    )  # fmt: skip
    history, last = linear.trajectory(method, linear.batches(STEPS, B), tx=tx)
    return [state for state, _ in history] + [last], [metrics for _, metrics in history]


def adam_count(state):
    if not hasattr(state.opt_state, "inner_states"):
        return int(state.opt_state[0].count)
    return int(state.opt_state.inner_states["prototypes"].inner_state.inner_state[0].count)


@pytest.mark.parametrize("name", MAKERS)
def test_optimizer_skips_frozen_prototypes(name):
    states, metrics = train(MAKERS[name](freeze_epochs=1.0))
    kernels = [state.params["prototypes"]["kernel"] for state in states]
    # Steps 0, 1 and 2 start before 2.5. Weight decay of 0.1 * 0.5 would be visible.
    for kernel in kernels[1:4]:
        np.testing.assert_array_equal(kernel, kernels[0])
    assert all(not np.array_equal(kernel, kernels[0]) for kernel in kernels[4:])
    assert [adam_count(state) for state in states] == [0, 0, 0, 0, 1, 2, 3]
    assert all(np.isfinite(m["grad_norm"]) for m in metrics)
    if name == "dino":  # the teacher's prototypes follow the student's
        target = [state.extra["target"]["prototypes"]["kernel"] for state in states]
        np.testing.assert_allclose(target[3], target[0], rtol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_first_update_after_the_freeze_has_the_size_of_a_first_update_of_adam(name):
    states, _ = train(MAKERS[name](freeze_epochs=1.0))
    before, after = (state.params["prototypes"]["kernel"] for state in states[3:5])
    rate = 0.1 * 0.5 * (1 + np.cos(np.pi * 3 / STEPS))
    size = np.abs(after - before * (1 - rate * 0.5)) / rate
    # A first update is gradient / (|gradient| + 1e-8): 1, except for the smallest gradients.
    np.testing.assert_allclose(np.median(size), 1, rtol=1e-2)


@pytest.mark.parametrize("name", MAKERS)
def test_old_runs_update_frozen_prototypes_by_gradients_of_0(name):
    method = MAKERS[name](freeze_epochs=1.0, skip_frozen=False)
    assert not method.turns
    states, metrics = train(method)
    assert [adam_count(state) for state in states] == list(range(STEPS + 1))
    first, second = (state.params["prototypes"]["kernel"] for state in states[:2])
    np.testing.assert_allclose(second, first * (1 - 0.1 * 0.5), rtol=1e-6)  # only decay
    # The frozen prototypes add nothing to the gradient, skipped or not.
    _, skipped = train(MAKERS[name](freeze_epochs=1.0))
    np.testing.assert_allclose(metrics[0]["grad_norm"], skipped[0]["grad_norm"], rtol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_without_freeze_the_optimizer_state_has_no_extra_level(name):
    now, old = (
        train(MAKERS[name](freeze_epochs=0.0, skip_frozen=skip))[0][-1] for skip in (True, False)
    )
    assert jax.tree.structure(now) == jax.tree.structure(old)
    jax.tree.map(np.testing.assert_array_equal, now, old)


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_other_optimizers_skip_frozen_prototypes(name):
    states, _ = train(MAKERS["dino"](freeze_epochs=1.0), name)
    kernels = [state.params["prototypes"]["kernel"] for state in states]
    moved = [not np.array_equal(kernel, kernels[0]) for kernel in kernels]
    assert moved == [False] * 4 + [True] * 3


@pytest.mark.parametrize(
    ("epochs", "steps"), [(0.0, 0), (0.1, 1), (0.4, 1), (0.8, 2), (1.0, 3), (2.0, 5), (1e9, STEPS)]
)
def test_freeze_steps_start_within_the_epochs(epochs, steps):
    assert freeze_steps(epochs, RUN) == steps


def test_freeze_steps_take_epochs_as_decimals():
    run = RUN._replace(num_examples=50_000, batch_size=500, total_steps=1000)
    assert freeze_steps(1.1, run) == 110  # 1.1 * 100.0 is more than 110
