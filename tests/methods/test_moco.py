"""MoCo's queue and momentum encoder against a NumPy simulation."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, moco

B, K, STEPS, MOMENTUM, TEMPERATURE = 4, 8, 5, 0.7, 0.2


def make(encoder=None, *, batch_size=B, bn_group=0, chunk=0, **options):
    run = Run(tiny.seen(2, 2), STEPS, batch_size, 16, bn_group=bn_group, chunk=chunk)
    options = {"queue_size": K, "head_depth": 1, "output_dim": 3} | options
    return moco.make(encoder or linear.Linear(), run, **options)


def project(params, x):
    """Applies the linear encoder and the linear head."""
    head = params["head"]["dense0"]
    return x @ params["encoder"]["dense"]["kernel"] @ head["kernel"] + head["bias"]


def test_queue_and_momentum_encoder_equal_the_simulation():
    method = make(momentum=MOMENTUM, temperature=TEMPERATURE)
    rows = linear.batches(STEPS, B)
    history, last = linear.trajectory(method, rows)
    start = history[0][0]
    queue = start.extra["queue"].transpose(1, 0, 2).reshape(K, -1).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(queue, axis=-1), 1, rtol=1e-6)
    key_params = jax.tree.map(np.float64, start.params)
    for step, (state, metrics) in enumerate(history):
        if step:  # the momentum encoder is updated before it encodes the keys of this step
            key_params = jax.tree.map(
                lambda k, q: MOMENTUM * k + (1 - MOMENTUM) * q, key_params, state.params
            )
        x = linear.flat(rows[step]["views"])
        q = linear.unit(project(state.params, x[:, 0]))
        k = linear.unit(project(key_params, x[:, 1]))
        logits = np.c_[(q * k).sum(-1), q @ queue.T] / TEMPERATURE
        loss = np.mean(np.log(np.exp(logits).sum(-1)) - logits[:, 0])
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        accuracy = np.mean(logits.argmax(-1) == 0)
        np.testing.assert_allclose(metrics["contrastive_accuracy"], accuracy)
        queue = np.r_[queue[B:], k]  # first in, first out
    # Slots are reused in turn: the next step overwrites the oldest one.
    slots = np.roll(last.extra["queue"], -(STEPS % (K // B)), axis=1)
    np.testing.assert_allclose(slots.transpose(1, 0, 2).reshape(K, -1), queue, atol=1e-5)
    assert history[0][1]["target_distance"] == 0
    assert history[1][1]["target_distance"] > 0.01


def test_keys_and_queue_receive_no_gradient():
    method = make()
    batch = jax.tree.map(jnp.asarray, linear.batches(1, B)[0])
    key = jax.random.key(0)
    params, extra = method.init(key, batch)

    def loss(target):
        changed = extra | {"target": target}
        outputs, _ = method.encode(params, changed, batch, key)
        return method.objective(params, changed, outputs, key, jnp.zeros((), jnp.int32))[0]

    assert all(not np.any(g) for g in jax.tree.leaves(jax.grad(loss)(extra["target"])))


def encode_groups(encoder, groups, images=None):
    """Outputs for 16 images of a method with `groups` groups of 4 images."""
    batch = jax.tree.map(jnp.asarray, linear.batches(1, 16, size=4)[0])
    batch = batch if images is None else batch | {"views": images(batch["views"])}
    key = jax.random.key(3)
    method = make(encoder, batch_size=16, bn_group=8, queue_size=16, shuffle_groups=groups)
    params, extra = method.init(key, batch)
    return method.encode(params, extra, batch, key)[0]


def test_keys_return_to_their_queries_after_the_permutation():
    unpermuted, permuted = (encode_groups(linear.Linear(), groups) for groups in (1, 2))
    np.testing.assert_allclose(permuted["key"], unpermuted["key"], rtol=1e-6)


def test_keys_are_permuted_only_within_their_block():
    unpermuted, permuted = (encode_groups(tiny.Encoder(), groups) for groups in (1, 2))
    np.testing.assert_array_equal(unpermuted["query"], permuted["query"])
    # Other images in the group give other statistics.
    assert np.abs(unpermuted["key"] - permuted["key"]).max() > 1e-3
    other = encode_groups(tiny.Encoder(), 2, lambda views: views.at[8:].add(1))
    np.testing.assert_allclose(other["key"][:8], permuted["key"][:8], atol=1e-6)
    assert np.abs(other["key"][8:] - permuted["key"][8:]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_size": 10}, "queue_size 10 is not a multiple of the batch size 4"),
        ({"bn_group": 4, "shuffle_groups": 3}, "do not divide the batch: 4 images"),
        ({"bn_group": 4, "chunk": 2, "shuffle_groups": 2}, "part of a micro-batch: 2 images"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
