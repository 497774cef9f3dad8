"""Backbones with random weights that no default value survives in, to be exported."""

import jax
import numpy as np

from ssl_jax import models
from ssl_jax.backbone import Backbone
from ssl_jax.weights import Weights


def backbone(model, size, *, classes=0, seed=0):
    """Of `models.get(**model)`; with a linear classifier where `classes` says so."""
    encoder = models.get(**model)
    image = np.zeros((2, size, size, 3), np.float32)
    tree = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, False), image)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if len(leaf.shape) > 1:
            return rng.normal(0, 1 / np.sqrt(np.prod(leaf.shape[:-1])), leaf.shape)
        kind = jax.tree_util.keystr(path[-1:], simple=True)
        low = -0.5 if kind in ("bias", "mean", "cls_token") else 0.5
        return rng.uniform(low, low + 1, leaf.shape)

    drawn = jax.tree_util.tree_map_with_path(lambda p, x: draw(p, x).astype(np.float32), tree)
    weights = Weights(dict(model), drawn["params"], drawn.get("batch_stats", {}))
    if classes:
        width = jax.eval_shape(lambda v, x: encoder.apply(v, x, False), tree, image).shape[1]
        dense = {
            "kernel": rng.normal(size=(width, classes)).astype(np.float32),
            "bias": rng.normal(size=classes).astype(np.float32),
        }
        others = {"classifier": {"params": {"dense": dense}, "batch_stats": {}}}
        weights = weights._replace(others=others)
    return Backbone(weights, size=size, classes=tuple(f"class {i}" for i in range(classes)))
