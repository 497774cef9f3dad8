"""SwAV's queue and prototypes over several steps."""

import itertools

import linear
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, swav

B, STEPS = 4, 6
RUN = Run(tiny.seen(2, 2), STEPS, B, num_examples=8)
OPTIONS = {"prototypes": 5, "hidden_dim": 6, "output_dim": 3}


def test_queue_holds_the_last_embeddings_and_takes_part_once_full():
    rows = linear.batches(STEPS, B)
    with_queue = swav.make(linear.Linear(), RUN, queue_size=8, queue_epoch=1.0, **OPTIONS)
    history, last = linear.trajectory(with_queue, rows)
    without_queue, _ = linear.trajectory(swav.make(linear.Linear(), RUN, **OPTIONS), rows)
    same = [
        np.isclose(a["loss"], b["loss"])
        for (_, a), (_, b) in zip(history, without_queue, strict=True)
    ]
    assert same[:2] == [True, True]  # the first epoch; the queue is full after it
    assert not same[2]
    queue = last.extra["queue"]
    assert queue.shape == (B, 2, 2, 3)
    np.testing.assert_allclose(np.linalg.norm(queue, axis=-1), 1, rtol=1e-5)
    before = history[-1][0].extra["queue"]
    changed = [not np.array_equal(before[:, slot], queue[:, slot]) for slot in range(2)]
    assert changed == [False, True]  # step 5 overwrites slot 1, the older one


def test_prototypes_are_frozen_in_the_first_epoch():
    history, last = linear.trajectory(
        swav.make(linear.Linear(), RUN, **OPTIONS), linear.batches(4, B)
    )
    kernels = [state.params["prototypes"]["kernel"] for state, _ in history]
    kernels.append(last.params["prototypes"]["kernel"])
    moved = [not np.array_equal(a, b) for a, b in itertools.pairwise(kernels)]
    assert moved == [False, False, True, True]


def test_invalid_settings_raise():
    with pytest.raises(ValueError, match="queue_size 6 is not a multiple of the batch size 4"):
        swav.make(linear.Linear(), RUN, queue_size=6)
    with pytest.raises(ValueError, match="2 full-size views or more, got 1"):
        swav.make(linear.Linear(), RUN._replace(seen=tiny.seen(1, 4, local=1, local_size=2)))
