"""Rotation prediction: labels by construction, no trivial solutions, and a task that is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ssl_jax import testing
from ssl_jax.methods import Run, rotation
from ssl_jax.methods._rotate import quarter_turns

B, SIZE = 6, 12
RUN = Run(tiny.seen(1, SIZE), 8, B, num_examples=B)
KEY = jax.random.key(5)


def make(images=None, **options):
    method = rotation.make(tiny.Encoder(), RUN, **options)
    images = np.random.default_rng(2).random((B, SIZE, SIZE, 3)) if images is None else images
    batch = {
        "views": jnp.asarray(images, jnp.float32)[:, None],
        "index": jnp.arange(len(images), dtype=jnp.int32),
    }
    params, extra = method.init(jax.random.key(1), batch)
    return method, params, extra, batch


def test_labels_are_the_quarter_turns():
    """A head that answers turn k for images turned k times has no loss, and any other has."""
    method, params, extra, _ = make()
    for shift in range(4):
        logits = 50 * jnp.roll(jnp.eye(4), shift, axis=1)
        outputs = {"prediction": jnp.broadcast_to(logits[None], (B, 4, 4)), "tilt": jnp.zeros(B)}
        loss, (_, metrics) = method.objective(params, extra, outputs, KEY, jnp.zeros((), int))
        assert metrics["pretext_accuracy"] == (shift == 0)
        assert (loss < 1e-6) == (shift == 0)
        assert metrics["pretext_chance"] == 0.25


def test_angles_are_tilt_plus_quarter_turns():
    method, params, extra, _ = make(angles="any")
    tilt = jnp.linspace(-0.7, 0.7, B)
    angle = np.asarray(tilt)[:, None] + np.arange(4) * np.pi / 2
    prediction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    outputs = {"prediction": prediction, "tilt": tilt}
    loss, (_, metrics) = method.objective(params, extra, outputs, KEY, jnp.zeros((), int))
    assert loss < 1e-6
    assert metrics["pretext_error"] < 0.1
    assert metrics["pretext_error_chance"] == 90


@pytest.mark.parametrize("angles", ["quarter", "any"])
def test_probe_sees_the_upright_copy_and_rows_do_not_depend_on_their_place(angles):
    method, params, extra, batch = make(angles=angles)
    outputs, _ = method.encode(params, extra, batch, KEY)
    assert outputs["features"].shape == (B, 1, 8)
    other, _ = method.encode(params, extra, {n: x[::-1] for n, x in batch.items()}, KEY)
    for name, rows in outputs.items():
        np.testing.assert_allclose(other[name][::-1], rows, atol=1e-5)
    tilt = np.asarray(outputs["tilt"])
    assert (abs(tilt) <= np.pi / 4).all()
    assert len(set(tilt.tolist())) == (1 if angles == "quarter" else B)


def probe_accuracy(pixels, label):
    """Test accuracy of a linear classifier, fitted by least squares to the first half."""
    pixels = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    half = len(pixels) // 2
    target = np.eye(4)[label[:half]]
    weights = np.linalg.lstsq(pixels[:half], target, rcond=None)[0]
    return ((pixels[half:] @ weights).argmax(1) == label[half:]).mean()


@pytest.mark.parametrize("kind", ["noise", "flat"])
def test_border_does_not_show_the_rotation_of_images_without_content(kind):
    rng = np.random.default_rng(3)
    shape = (3000, 12, 12, 3) if kind == "noise" else (3000, 1, 1, 3)
    images = np.broadcast_to(rng.random(shape), (3000, 12, 12, 3)).astype(np.float32)
    turned = np.asarray(quarter_turns(jnp.asarray(images)))
    label = rng.integers(0, 4, 3000)
    turned = turned[np.arange(3000), label]
    edge = np.concatenate([turned[:, 0], turned[:, -1], turned[:, :, 0], turned[:, :, -1]], axis=1)
    accuracy = probe_accuracy(edge.reshape(3000, -1) - 0.5, label)
    assert abs(accuracy - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1500)  # four standard errors


@pytest.mark.parametrize("angles", ["quarter", "any"])
def test_rotation_of_images_with_a_bright_top_is_learned(angles):
    ramp = np.linspace(1, 0, SIZE)[:, None, None]
    images = ramp * np.random.default_rng(4).uniform(0.6, 1, (B, 1, 1, 3)) * np.ones((1, SIZE, 1))
    images = np.broadcast_to(images, (B, SIZE, SIZE, 3))
    method, params, extra, batch = make(images, angles=angles)
    tx = optax.adam(0.02)

    @jax.jit
    def descend(params, extra, state, step):
        def loss(p):
            key = jax.random.fold_in(KEY, step)
            outputs, stats = method.encode(p, extra, batch, key)
            value, (_, metrics) = method.objective(p, extra, outputs, key, step)
            return value, (metrics, stats)

        (_, (metrics, stats)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(gradient, state)
        params = optax.apply_updates(params, updates)
        return params, method.after_update(params, extra, stats, step), state, metrics

    state = tx.init(params)
    for step in range(150):
        params, extra, state, metrics = descend(params, extra, state, step)
    if angles == "quarter":
        assert metrics["pretext_accuracy"] == 1
    else:
        assert metrics["pretext_error"] < 25
    # The picture turns the images back to their originals.
    grid = np.asarray(method.pictures[0].draw(params, extra, batch["views"][:, 0], KEY))
    assert grid.shape == (B, 3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(grid[:, 2], batch["views"][:, 0])
    if angles == "quarter":
        np.testing.assert_array_equal(grid[:, 1], grid[:, 2])
        assert np.abs(grid[:, 0] - grid[:, 2]).max() > 0.1
    else:
        middle = np.s_[:, 1, 4:8, 4:8]
        assert np.abs(grid[middle] - np.asarray(images)[:, 4:8, 4:8]).mean() < 0.1


def test_angles_of_any_size_keep_the_contract():
    testing.check_method(rotation.make, arrays=tiny.seen(1, 8), angles="any")


def test_unknown_angles_and_oblong_views_raise():
    with pytest.raises(ValueError, match="one of quarter, any; got 'all'"):
        rotation.make(tiny.Encoder(), RUN, angles="all")
    seen = {"views": jax.ShapeDtypeStruct((1, 8, 6, 3), jnp.float32)}
    with pytest.raises(ValueError, match="square views, got 8 x 6"):
        rotation.make(tiny.Encoder(), RUN._replace(seen=seen))
    with pytest.raises(ValueError, match=r"set augment\.views to 1"):
        rotation.make(tiny.Encoder(), RUN._replace(seen=tiny.seen(2, SIZE)))
