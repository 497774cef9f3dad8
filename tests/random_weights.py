"""Encoders' weights drawn at random, no default value among them."""

import zlib

import jax
import numpy as np

from ssl_jax import models
from ssl_jax.weights import Weights


def draw(path, shape):
    """A leaf by its path; activations neither grow nor vanish, so that rounding stays rounding."""
    rng = np.random.default_rng(zlib.crc32("/".join(path).encode()))
    if path[-1] == "kernel":
        array = rng.normal(0, np.sqrt(1 / np.prod(shape[:-1])), shape)
    elif path[-1] in ("scale", "var"):
        array = rng.uniform(0.5, 1.5, shape)
    else:
        array = rng.uniform(-0.5, 0.5, shape)
    return array.astype(np.float32)


def make(name, size=32, classes=0, head=None, **options):
    """Weights of an encoder for images of `size` pixels; `head` is a module behind it."""
    module = models.get(name, **options)
    images = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    variables = random_variables(module, images)
    features = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, False), images
    )
    others = {}
    if classes:
        shape = (features[0].shape[1], classes)
        dense = {"kernel": draw(("classifier", "kernel"), shape)}
        dense["bias"] = draw(("classifier", "bias"), (classes,))
        others["classifier"] = {"params": {"dense": dense}, "batch_stats": {}}
    if head is not None:
        others["head"] = random_variables(head, features[0])
    return Weights({"name": name, **options}, **variables, others=others)


def random_variables(module, x):
    """{"params", "batch_stats"} of a module."""
    tree = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), x)
    found = {"params": {}, "batch_stats": {}} | dict(tree)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw([key.key for key in path], leaf.shape), found
    )


def features(weights, images):
    """The encoder's features by our own forward, at full precision."""
    module = models.get(**weights.model)
    variables = {"params": weights.params, "batch_stats": weights.batch_stats}
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(module.apply, static_argnums=2)(variables, images, False))


def images(size, n=2):
    return np.random.default_rng(0).uniform(size=(n, size, size, 3)).astype(np.float32)


def relative(got, want):
    """Largest error over the largest value that is wanted."""
    return float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())


def assert_same(got, want):
    """The same arrays, bit by bit, and the same network."""
    for tree, other in zip(got[1:], want[1:], strict=True):
        assert jax.tree.structure(tree) == jax.tree.structure(other)
        for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_array_equal(a, b)
    assert models.get(**got.model) == models.get(**want.model)
