"""Contexts see only what was read before, and predictions belong to the right patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.context import DIRECTIONS, GridPredictor, MaskedContext, positives

SIDE, F = 5, 6
Z = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, F)).astype(np.float32)
# Patches that a context at row i must not depend on, as (axis of the grid, order along it).
FUTURE = {"down": (0, 1), "up": (0, -1), "right": (1, 1), "left": (1, -1)}


def predictor(**options):
    module = GridPredictor(**({"width": 4, "depth": 2, "first_step": 1, "steps": 4} | options))
    params = module.init(jax.random.key(0), jnp.asarray(Z))
    return jax.jit(module.apply), params


def by_prediction(side, directions, first, steps):
    """Returns (direction, row in the order of reading, place in the row, step), in order."""
    every = []
    for direction in DIRECTIONS[:directions]:
        axis, order = FUTURE[direction]
        for step in range(first, min(first + steps, side)):
            for position in np.ndindex(side, side):
                row = position[axis] if order > 0 else side - 1 - position[axis]
                if row < side - step:
                    every.append((direction, row, position[1 - axis], step))
    return every


def patch(direction, row, place, side):
    """Returns the index of the patch at a row in the order of reading."""
    axis, order = FUTURE[direction]
    row = row if order > 0 else side - 1 - row
    return row * side + place if axis == 0 else place * side + row


@pytest.mark.parametrize(("side", "directions", "first", "steps"), [(5, 4, 1, 9), (4, 3, 2, 1)])
def test_positives_lie_the_step_ahead_in_the_same_column(side, directions, first, steps):
    every = by_prediction(side, directions, first, steps)
    wanted = [patch(d, row + step, place, side) for d, row, place, step in every]
    np.testing.assert_array_equal(positives(side, directions, first, steps), wanted)


def test_positives_of_three_rows_by_hand():
    assert positives(3, 1, 2, 5).tolist() == [6, 7, 8]
    assert positives(3, 4, 2, 1).tolist() == [6, 7, 8, 0, 1, 2, 2, 5, 8, 0, 3, 6]


def test_a_context_sees_its_row_and_the_rows_above():
    module = MaskedContext(width=8, depth=3)
    apply = jax.jit(module.apply)
    params = module.init(jax.random.key(0), jnp.asarray(Z))
    before = np.asarray(apply(params, Z))
    for row in range(SIDE):
        moved = Z.copy()
        moved[:, row] += 1
        after = np.asarray(apply(params, moved))
        np.testing.assert_array_equal(after[:, :row], before[:, :row])
        assert np.any(after[:, row] != before[:, row])
        assert row == SIDE - 1 or np.any(after[:, row + 1] != before[:, row + 1])


@pytest.mark.parametrize(
    ("direction", "turn"),
    [
        ("up", lambda x: x[:, ::-1]),
        ("right", lambda x: x.swapaxes(1, 2)),
        ("left", lambda x: x.swapaxes(1, 2)[:, ::-1]),
    ],
)
def test_a_direction_is_the_context_of_the_turned_grid(direction, turn):
    module = MaskedContext(direction, width=8, depth=2)
    params = module.init(jax.random.key(0), jnp.asarray(Z))

    def down(path, kernel):
        """Turns a kernel of the direction into that of "down"."""
        if kernel.ndim < 4:
            return kernel
        kernel = kernel if direction == "up" else kernel.swapaxes(0, 1)
        is_along = path[-2].key.startswith("along")
        return kernel[::-1] if is_along and direction in ("up", "left") else kernel

    turned = jax.tree_util.tree_map_with_path(down, params)
    wanted = MaskedContext("down", width=8, depth=2).apply(turned, turn(Z))
    np.testing.assert_allclose(turn(module.apply(params, Z)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_predictions_do_not_depend_on_later_rows_in_any_direction(direction):
    apply, params = predictor(directions=4)
    before = np.asarray(apply(params, Z)[0])
    every = by_prediction(SIDE, 4, 1, 4)
    for row in range(1, SIDE):
        moved = Z.reshape(2, SIDE**2, F).copy()
        moved[:, [patch(direction, row, place, SIDE) for place in range(SIDE)]] += 1
        after = np.asarray(apply(params, moved.reshape(Z.shape))[0])
        earlier = [d == direction and at < row for d, at, *_ in every]
        np.testing.assert_array_equal(after[:, earlier], before[:, earlier])
        same_row = [d == direction and at == row for d, at, *_ in every]
        assert row == SIDE - 1 or np.any(after[:, same_row] != before[:, same_row])


def test_a_prediction_is_a_linear_map_of_the_context_for_its_step():
    apply, variables = predictor(target_dim=3, first_step=2, steps=2, directions=2)
    predictions, targets = apply(variables, Z)
    params = variables["params"]
    wanted = []
    for direction in ("down", "up"):
        network = MaskedContext(direction, width=4, depth=2)
        context = network.apply({"params": params[direction]}, Z)
        for step in (2, 3):
            rows = context[:, :-step] if direction == "down" else context[:, step:]
            kernel = params[f"{direction}_step{step}"]["kernel"]
            wanted.append((rows @ kernel).reshape(2, -1, 3))
    np.testing.assert_allclose(predictions, np.concatenate(wanted, 1), rtol=1e-5, atol=1e-6)
    wanted = Z.reshape(2, -1, F) @ params["target"]["kernel"]
    np.testing.assert_allclose(targets, wanted, rtol=1e-5, atol=1e-6)


def test_without_a_target_width_the_targets_are_the_encodings():
    apply, params = predictor()
    predictions, targets = apply(params, Z)
    np.testing.assert_array_equal(targets, Z.reshape(2, -1, F))
    assert predictions.shape == (2, len(positives(SIDE, 1, 1, 4)), F)
