"""Attacked views (RoCL) against gradient ascent and losses that are written out in NumPy."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, simclr
from ssl_jax.methods._attack import Attack, instance_loss, perturb, start_noise

B, T, SIZE = 6, 0.4, 2
FIELDS = {"attack_steps": 3, "attack_epsilon": 0.1, "attack_step_size": 0.04}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def make(group=0, **options):
    run = Run(tiny.seen(2, SIZE), 5, B, 16, bn_group=group)
    encoder = linear.Linear(dtype=jnp.float64)
    settings = {"head_depth": 0, "temperature": T, **FIELDS, **options}
    return simclr.make(encoder, run, **settings)


def random_batch():
    rng = np.random.Generator(np.random.PCG64(4))
    views = rng.random((B, 2, SIZE, SIZE, 3))
    views[0, 0] = 0  # at the limits of the range
    views[1, 0] = 1
    return {"views": views, "index": np.arange(B, dtype=np.int32) + 3}


def ascend(gradient, images, noise, steps, epsilon, step_size):
    """Madry's attack, written out: step, then both projections one after the other."""
    x = np.clip(images + epsilon * noise, 0, 1)
    for _ in range(steps):
        x = x + step_size * np.sign(gradient(x))
        x = np.maximum(np.minimum(x, images + epsilon), images - epsilon)
        x = np.minimum(np.maximum(x, 0), 1)
    return x


def test_ascent_equals_the_written_out_one():
    rng = np.random.Generator(np.random.PCG64(1))
    images, centre = rng.random((4, 3, 3, 2)), rng.random((4, 3, 3, 2))
    noise = rng.uniform(-1, 1, images.shape)
    attacked = perturb(
        lambda x: -jnp.square(x - centre).sum(), jnp.asarray(images), noise, Attack(5, 0.1, 0.03)
    )
    expected = ascend(lambda x: -2 * (x - centre), images, noise, 5, 0.1, 0.03)
    np.testing.assert_allclose(attacked, expected, atol=1e-12)


def test_the_attack_reaches_and_keeps_its_limits():
    images = jnp.linspace(0, 1, 48).reshape(2, 2, 4, 3)
    noise = jnp.ones_like(images)
    for sign in (1, -1):
        attacked = perturb(lambda x, sign=sign: sign * x.sum(), images, noise, Attack(7, 0.1, 9.0))
        np.testing.assert_allclose(attacked, np.clip(images + sign * 0.1, 0, 1), atol=1e-12)


def test_no_gradient_flows_through_the_attack():
    images = jnp.full((2, 2, 2, 3), 0.5)

    def total(scale, images):
        return perturb(
            lambda x: scale * x.sum(), images, jnp.zeros_like(images), Attack(2, 0.1, 0.01)
        ).sum()

    for gradient in jax.grad(total, argnums=(0, 1))(1.0, images):
        np.testing.assert_array_equal(gradient, 0)


def test_noise_depends_only_on_the_index_of_an_example():
    key, images = jax.random.key(3), jnp.zeros((4, 5, 5, 3))
    noise = start_noise(key, jnp.array([7, 1, 7, 2]), images)
    other = start_noise(key, jnp.array([1, 9, 5, 7]), images)
    np.testing.assert_array_equal(noise[0], other[3])
    np.testing.assert_array_equal(noise[0], noise[2])
    assert not np.array_equal(noise[0], noise[1])
    assert -1 <= noise.min() < -0.9
    assert 0.9 < noise.max() <= 1


def cross_entropies(anchor, attacked, target, group):
    """Cross-entropy of each attacked view as the anchor, by loops."""
    anchor, attacked, target = map(linear.unit, (anchor, attacked, target))
    values = []
    for i in range(len(anchor)):
        members = range(i // group * group, i // group * group + group)
        others = [target[j] for j in members] + [attacked[j] for j in members if j != i]
        terms = [np.exp(anchor[i] @ z / T) for z in others]
        values.append(-np.log(np.exp(anchor[i] @ target[i] / T) / sum(terms)))
    return np.array(values)


@pytest.mark.parametrize("group", [6, 3, 2])
def test_loss_of_the_attack_and_its_gradient_equal_the_loops(group):
    rng = np.random.Generator(np.random.PCG64(5))
    attacked, target = rng.normal(size=(2, B, 4))
    loss, gradient = jax.value_and_grad(instance_loss)(
        jnp.asarray(attacked), target, temperature=T, group=group
    )
    assert loss == pytest.approx(cross_entropies(attacked, attacked, target, group).sum())
    numeric = central_differences(
        lambda x: cross_entropies(x, attacked, target, group).sum(), attacked
    )
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)


def central_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for position in np.ndindex(x.shape):
        change = np.zeros_like(x)
        change[position] = step
        gradient[position] = (function(x + change) - function(x - change)) / (2 * step)
    return gradient


@pytest.mark.parametrize("group", [0, 4])  # rows; 4 rows are 2 examples
def test_encode_embeds_the_attacked_first_view(group):
    method, batch, key = make(group), random_batch(), jax.random.key(8)
    params, extra = method.init(jax.random.key(0), batch)
    outputs, _ = jax.jit(method.encode)(params, extra, batch, key)
    kernel = np.float64(params["encoder"]["dense"]["kernel"])

    def embed(images):
        return images.reshape(B, -1) @ kernel

    first, target = batch["views"][:, 0], embed(batch["views"][:, 1])

    def gradient(x):
        now = embed(x)
        return central_differences(
            lambda y: cross_entropies(embed(y), now, target, group // 2 or B).sum(), x
        )

    noise = np.float64(start_noise(key, batch["index"], jnp.asarray(first)))
    attacked = ascend(gradient, first, noise, 3, 0.1, 0.04)
    expected = np.stack([embed(first), target, embed(attacked)], axis=1)
    np.testing.assert_allclose(outputs["z"], expected, atol=1e-10)
    assert outputs["features"].shape == (B, 2, 4)  # the probe never sees attacked images


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_objective_equals_its_formula(weight):
    z = np.random.Generator(np.random.PCG64(6)).normal(size=(B, 3, 4))
    method = make(attack_weight=weight, scale=3.0)
    loss, _ = method.objective({}, {}, {"z": jnp.asarray(z)}, jax.random.key(0), 0)
    every = linear.unit(z)

    def total(views):
        """Sum over anchors and positives, divided by the number of anchors."""
        anchors = [(i, v) for i in range(B) for v in views]
        value = 0.0
        for i, v in anchors:
            denominator = sum(
                np.exp(every[i, v] @ every[j, w] / T) for j, w in anchors if (j, w) != (i, v)
            )
            for w in views:
                if w != v:
                    value -= np.log(np.exp(every[i, v] @ every[i, w] / T) / denominator)
        return value / len(anchors)

    assert loss == pytest.approx(3 * (total((0, 1, 2)) + weight * total((1, 2))))


def test_the_gradient_of_a_step_takes_the_attacked_images_as_given():
    method, batch, key = make(), random_batch(), jax.random.key(8)
    params, extra = method.init(jax.random.key(0), batch)

    def loss(params):
        return method.objective(params, extra, method.encode(params, extra, batch, key)[0], key, 0)[
            0
        ]

    # Signs, and therefore attacked images, do not change under a small change of the weights. The
    # difference quotient then treats the images as given, too.
    kernel = np.float64(params["encoder"]["dense"]["kernel"])
    jitted = jax.jit(loss)
    numeric = central_differences(
        lambda k: float(jitted({**params, "encoder": {"dense": {"kernel": k}}})), kernel
    )
    gradient = jax.grad(loss)(params)["encoder"]["dense"]["kernel"]
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack_steps": -1}, "attack_steps must be at least 1, got -1"),
        ({"attack_epsilon": 0.0}, "attack_epsilon must be a finite number above 0"),
        ({"attack_step_size": float("inf")}, "attack_step_size must be a finite number above 0"),
        ({"attack_weight": -0.1}, "attack_weight must be a finite number of at least 0"),
        ({"loss": "decoupled"}, "attacked views have no method.loss"),
        (
            {"head_depth": 2, "head_dropout": 0.1, "temperature_schedule": "cosine"},
            "no method.temperature_schedule, method.head_dropout",
        ),
        ({"scale": 0.0}, "scale must be a finite number above 0"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
