"""The methods with a momentum encoder, or target network: its average, and the symmetric kind."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_jax.methods import Batch, Method, Run
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain

Tree = Any
TARGET = ("encoder", "projector")  # what the target network consists of
Loss = Callable[[jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def cosine_momentum(base: float, step: jax.Array, total_steps: int) -> jax.Array:
    """Momentum from `base` at step 0 to 1 at the end, by half a cosine; float32 [].

    Source: BYOL (arXiv 2006.07733), section 3.3: 1 - (1 - base) (cos(pi k / K) + 1) / 2.
    """
    done = jnp.asarray(step, jnp.float32) / total_steps
    return 1 - (1 - base) * (jnp.cos(jnp.pi * done) + 1) / 2


def moving_average(target: Tree, online: Tree, momentum: float | jax.Array) -> Tree:
    """momentum * target + (1 - momentum) * online, for the modules that `target` has."""
    return {
        name: optax.incremental_update(online[name], target[name], 1 - momentum) for name in target
    }


def distance(target: Tree, online: Tree) -> dict[str, jax.Array]:
    """{"target_distance": |online - target| / |online|} over the modules that `target` has."""
    online = jax.lax.stop_gradient({name: online[name] for name in target})
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, online, target))
    return {"target_distance": gap / optax.tree.norm(online)}


def predict_target(
    networks: Chain, run: Run, loss: Loss, *, momentum: float, own_target: bool
) -> Method:
    """Both views through both networks; the online network's predictions meet the target's
    projections. Views are normalised apart, as if forwarded one by one.

    The target follows the online network after every step by `cosine_momentum`; it has running
    statistics of its own.

    Args:
      networks: encoder, projector, predictor; the target is the first two.
      loss: (predictions, projections), both [b, 2, d] -> (scalar, metrics); the second has no
        gradient to give.
      momentum: at the first step.
      own_target: the target starts from weights of its own, not as a copy.

    Raises:
      ValueError: not two views.
    """
    check_views(run, 2)

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        params, stats = networks.init(keys[0], batch["views"])
        target = networks.init(keys[1], batch["views"]) if own_target else (params, stats)
        target_params, target_stats = ({n: tree[n] for n in TARGET} for tree in target)
        stats = {"online": stats, "target": target_stats}
        return params, {"batch_stats": stats, "target": target_params}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        stats, views = extra["batch_stats"], batch["views"]
        online, online_stats = networks(params, stats["online"], views, apart=True)
        target, target_stats = networks(
            extra["target"], stats["target"], views, apart=True, upto=TARGET[-1]
        )
        outputs = {
            "prediction": online["predictor"],
            "target": target["projector"],
            "features": online["encoder"],
        }
        return outputs, {"online": online_stats, "target": target_stats}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del key, step
        value, metrics = loss(outputs["prediction"], jax.lax.stop_gradient(outputs["target"]))
        return value, (extra, metrics | distance(extra["target"], params))

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        m = cosine_momentum(momentum, step, run.total_steps)
        return {"batch_stats": stats, "target": moving_average(extra["target"], params, m)}

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"]["online"], images)

    layout = {"batch_stats": "replicated", "target": "parameters"}
    return Method(init, encode, objective, features, after_update, layout)
