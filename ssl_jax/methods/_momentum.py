"""Shared part of the methods with a momentum encoder or target network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_jax.methods import Batch, Method, Run
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain

Tree = Any
TARGET = ("encoder", "projector")  # modules of the target network
Loss = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def cosine_momentum(base: float, step: jax.Array, total_steps: int) -> jax.Array:
    """Momentum that rises from `base` at step 0 to 1 at the last step along half a cosine.

    Returns:
      float32 scalar.

    Source: BYOL (arXiv 2006.07733), section 3.3: 1 - (1 - base) (cos(pi k / K) + 1) / 2.
    """
    progress = jnp.asarray(step, jnp.float32) / total_steps
    return 1 - (1 - base) * (jnp.cos(jnp.pi * progress) + 1) / 2


def moving_average(target: Tree, online: Tree, momentum: float | jax.Array) -> Tree:
    """Returns momentum * target + (1 - momentum) * online for every module of `target`."""
    return {
        name: optax.incremental_update(online[name], target[name], 1 - momentum) for name in target
    }


def distance(target: Tree, online: Tree) -> dict[str, jax.Array]:
    """Relative distance between online and target network, over the modules of `target`.

    Returns:
      {"target_distance": |online - target| / |online|}, a scalar without gradient.
    """
    online = jax.lax.stop_gradient({name: online[name] for name in target})
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, online, target))
    return {"target_distance": gap / optax.tree.norm(online)}


def predict_target(
    networks: Chain, run: Run, loss: Loss, *, momentum: float, own_target: bool
) -> Method:
    """Online network whose predictions are compared with the projections of a target network.

    Both views pass through both networks. Each view has its own BatchNorm statistics, as if the
    views were forwarded one by one. After every step, the target follows the online network with
    `cosine_momentum`; it keeps its own running statistics.

    Args:
      networks: encoder, projector and predictor; the target network has the first two.
      run: two views.
      loss: (predictions, projections, step), the first two [b, 2, d] -> (scalar, metrics).
        Projections carry no gradient.
      momentum: momentum at the first step.
      own_target: True initialises the target with its own weights; False copies the online network.

    Raises:
      ValueError: if the run does not have two views of one size.
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
        del key
        target = jax.lax.stop_gradient(outputs["target"])
        value, metrics = loss(outputs["prediction"], target, step)
        return value, (extra, metrics | distance(extra["target"], params))

    def after_update(params: Tree, extra: Tree, stats: Tree, step: jax.Array) -> Tree:
        m = cosine_momentum(momentum, step, run.total_steps)
        return {"batch_stats": stats, "target": moving_average(extra["target"], params, m)}

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return networks.features(params, extra["batch_stats"]["online"], images)

    layout = {"batch_stats": "replicated", "target": "parameters"}
    return Method(init, encode, objective, features, after_update, layout)
