"""Fine-tuning: classification on top of a pre-trained encoder that goes on learning."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, parallel
from ssl_jax.data import sources
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import draws
from ssl_jax.methods import Batch, Tree
from ssl_jax.models.chain import Chain
from ssl_jax.pretrained import classifier
from ssl_jax.pretrained.classifier import KEPT
from ssl_jax.training.step import TrainState, state_shardings

LAYOUT = "replicated"  # of `extra`


class Parts(NamedTuple):
    """Everything that fine-tuning is made of; `loop.fit` reads it as it reads `build.Parts`."""

    source: sources.Source
    test: sources.Source | None
    mesh: Mesh
    total_steps: int
    networks: Chain
    abstract_state: TrainState
    new_state: Callable[[], TrainState]
    train_step: Callable[..., Any]  # (state, batch) -> (state, metrics), jitted, state donated


def parts(config: ConfigDict, weights: Tree, mesh: Mesh) -> Parts:
    """Builds a fine-tuning; nothing is compiled or computed yet.

    Args:
      config: of `configuration.finetuning_config`.
      weights: (params, batch_stats) of `classifier.pretrained`.

    Raises:
      Fault: data without labels, too few of them, or a head that has no such layer.
    """
    data = build.source(config, config.data.split)
    test = build.test_source(config, data)
    data = labelled(
        data,
        fraction=config.finetune.fraction,
        per_class=config.finetune.labels_per_class,
        seed=config.train.seed,
    )
    total = build.total_steps(config, data.size)
    tx, schedule = build.optimizer(config, data.size, total)
    networks = classifier.network(
        build.encoder(config),
        weights[0],
        config.finetune.head_layer,
        len(data.classes),
        name=config.method.name,
        bn_group=config.model.bn_group,
    )
    init = init_fn(networks, tx, build.batch_spec(config), seed=config.train.seed)
    shapes = jax.eval_shape(init, weights)
    layouts = state_shardings(shapes, LAYOUT, mesh)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layouts
    )
    train_step = make_train_step(networks, tx, schedule, mesh=mesh, prepare=build.prepare(config))
    return Parts(
        source=data,
        test=test,
        mesh=mesh,
        total_steps=total,
        networks=networks,
        abstract_state=abstract,
        new_state=lambda: jax.jit(init, out_shardings=layouts)(weights),
        train_step=jax.jit(
            train_step, donate_argnums=0, compiler_options=parallel.compiler_options(mesh)
        ),
    )


def labelled(
    source: sources.Source, *, fraction: float, per_class: int, seed: int
) -> sources.Source:
    """The examples that may show their labels, as many of every class.

    Args:
      fraction: of every class, at least one example; 1 takes all.
      per_class: so many instead. Linear evaluation's first draw takes the same.

    Raises:
      Fault: no labels, or too few.
    """
    labels = np.array([source.label(index) for index in range(source.size)])
    has_label = np.flatnonzero(labels >= 0)
    if not source.classes or not len(has_label):
        raise Fault(f"{source.name} has no labels: fine-tuning learns from them", BAD_DATA)
    if fraction == 1 and not per_class:
        return source if len(has_label) == source.size else sources.subset(source, has_label)
    names, codes = np.unique(labels[has_label], return_inverse=True)
    share = np.maximum(np.rint(fraction * np.bincount(codes)), 1).astype(int)
    rng = np.random.default_rng([seed, 0])
    names = np.array(source.classes)[names]
    drawn = draws.draw_labels(codes, per_class or share, rng=rng, names=names)
    return sources.subset(source, has_label[drawn])


def init_fn(
    networks: Chain, tx: optax.GradientTransformation, spec: Tree, *, seed: int
) -> Callable[[Tree], TrainState]:
    """The function that makes step 0's state of the pre-trained (params, batch_stats)."""

    def init(weights: Tree) -> TrainState:
        images = jnp.zeros((2, *spec["views"].shape[1:]))
        fresh = networks.init(jax.random.key(seed), images)
        params, stats = (
            new | {name: _take(new[name], old[name]) for name in KEPT if name in new}
            for new, old in zip(fresh, weights, strict=True)
        )
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            extra={"batch_stats": stats},
            opt_state=tx.init(params),
            probe={},
        )

    return init


def _take(new: Tree, old: Tree) -> Tree:
    """`old` where `new` has a place for it: a head may be cut."""
    if not isinstance(new, dict):
        return old
    return {name: _take(tree, old[name]) for name, tree in new.items()}


def make_train_step(
    networks: Chain,
    tx: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    mesh: Mesh,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns (state, batch with "views" [b, 1, h, w, 3] and "label" [b]) -> (state, metrics).

    Mean cross-entropy over the global batch; "accuracy" is of the augmented images as trained on.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        label, views = batch["label"], prepare(batch)["views"]

        def loss_fn(params: Tree):
            outputs, stats = networks(params, state.extra["batch_stats"], views)
            logits = outputs["classifier"][:, 0]
            loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)
            return loss.mean(), (stats, (logits.argmax(-1) == label).mean())

        layouts = state_shardings(state, LAYOUT, mesh)
        params = parallel.gathered("parameters", state.params, mesh)
        (loss, (stats, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        grads = parallel.constrained(grads, layouts.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
        }
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            extra={"batch_stats": stats},
            opt_state=opt_state,
        )
        return parallel.constrained(new, layouts), metrics

    return train_step
