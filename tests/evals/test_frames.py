"""Protocol `frames` draws valid frames by example, and never padding."""

import jax.numpy as jnp
import numpy as np

from ssl_jax.evals.protocols import frames

VALID = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], bool)
# The value of a frame tells its example and place.
FRAMES = (10 * np.arange(3)[:, None] + np.arange(6)[None])[..., None].astype(np.float32)
INDEX = np.array([4, 7, 9])


def draw(index=INDEX, count=3, seed=0, rows=slice(None)):
    arrays = (jnp.asarray(FRAMES[rows]), jnp.asarray(VALID[rows]), jnp.asarray(index[rows]))
    return [np.asarray(x) for x in frames._draw(*arrays, count, seed)]


def test_drawn_frames_are_different_valid_frames_of_the_example():
    drawn, valid = draw()
    assert valid.sum(1).tolist() == [3, 2, 3]
    for row in range(3):
        values = drawn[row, valid[row], 0]
        assert len(set(values)) == len(values)
        assert set(values) <= set(FRAMES[row, VALID[row], 0])
    drawn, valid = draw(count=50)  # all frames
    assert sorted(drawn[valid][:, 0]) == sorted(FRAMES[VALID][:, 0])


def test_draws_depend_on_seed_and_example_alone():
    drawn, _ = draw()
    np.testing.assert_array_equal(draw(rows=slice(2, 3))[0][0], drawn[2])
    assert any(not np.array_equal(draw(seed=s)[0], drawn) for s in range(1, 5))
    every = [draw(seed=s)[0][0, :, 0] for s in range(100)]
    counts = np.bincount(np.concatenate(every).astype(int), minlength=6)
    assert counts.min() > 25  # 50 on average


def test_every_recording_gets_the_same_number():
    assert frames.per_example(20000, 2700) == 8
    assert frames.per_example(100, 1000) == 1


def test_labels_follow_their_frames():
    drawn, valid = draw()
    columns = {"trained": drawn, "trained" + frames.VALID: valid, "label": np.array([5, 6, 7])}
    rows, labels = frames._rows(columns, "trained")
    assert rows.shape == (8, 1)
    np.testing.assert_array_equal(labels, rows[:, 0] // 10 + 5)
