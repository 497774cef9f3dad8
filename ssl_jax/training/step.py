"""The training step: encode, objective, gradient, update, over the global batch.

One pure function, jitted once. It branches on no method, device count or host count.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax import parallel
from ssl_jax.methods import Batch, Method, Tree
from ssl_jax.training import collapse
from ssl_jax.training.batch_hash import fingerprint

PROBE_LEARNING_RATE = 1e-3


class TrainState(flax.struct.PyTreeNode):
    """All that a run carries from step to step. Randomness is derived from `step`, not carried."""

    step: jax.Array  # int32 []
    params: Tree
    extra: Tree
    opt_state: Tree
    probe: Tree  # the online probe's parameters and optimizer state; {} without labels


class Probe(NamedTuple):
    """Online linear probe: softmax regression on stop-gradient features, by its own Adam.

    It stands outside the method, its optimizer, LARS and weight decay, so labels reach nothing
    but the probe itself.
    """

    num_classes: int

    @property
    def tx(self) -> optax.GradientTransformation:
        return optax.adam(PROBE_LEARNING_RATE)

    def init(self, feature_dim: int) -> Tree:
        """Zero weights for features of width `feature_dim`; {} when there are no classes."""
        if not self.num_classes:
            return {}
        params = {
            "kernel": jnp.zeros((feature_dim, self.num_classes)),
            "bias": jnp.zeros((self.num_classes,)),
        }
        return {"params": params, "opt_state": self.tx.init(params)}

    def update(self, state: Tree, features: jax.Array, label: jax.Array) -> tuple[Tree, dict]:
        """One step on features [b, v, f] and labels [b] (-1: no label); (state, metrics)."""
        x = jax.lax.stop_gradient(features)
        y = jnp.broadcast_to(label[:, None], x.shape[:2])
        weight = (y >= 0).astype(x.dtype)
        count = jnp.maximum(weight.sum(), 1)

        def loss_fn(params):
            logits = jnp.einsum("bvf,fk->bvk", x, params["kernel"]) + params["bias"][None, None]
            loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(y, 0))
            hits = (logits.argmax(-1) == y).astype(x.dtype)
            return (loss * weight).sum() / count, (hits * weight).sum() / count

        (loss, accuracy), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"])
        updates, opt_state = self.tx.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"params": params, "opt_state": opt_state}
        return new, {"probe_loss": loss, "probe_accuracy": accuracy}


def init_fn(
    method: Method, tx: optax.GradientTransformation, probe: Probe, spec: Tree, *, seed: int
) -> Callable[[], TrainState]:
    """The function that makes step 0's state; run it under `born_sharded`.

    Args:
      spec: the global batch as the method sees it ("views" [b, v, h, w, 3] and "index" [b]), as
        ShapeDtypeStructs or arrays; only shapes and dtypes are read.

    Raises (the function):
      ValueError: the method cannot work on such a batch.
    """

    def init() -> TrainState:
        key = jax.random.key(seed)
        zeros = jax.tree.map(lambda x: jnp.zeros((2, *x.shape[1:]), x.dtype), spec)
        params, extra = method.init(key, zeros)

        def forward(batch):
            outputs, _ = method.encode(params, extra, batch, key)
            # Only here an objective meets the whole batch's shapes before anything is compiled.
            method.objective(params, extra, outputs, key, jnp.zeros((), jnp.int32))
            return outputs

        outputs = jax.eval_shape(forward, spec)
        width = outputs["features"].shape[-1] if "features" in outputs else 0
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            extra=extra,
            opt_state=tx.init(params),
            probe=probe.init(width) if width else {},
        )

    return init


def state_shardings(state: TrainState, layout: Tree, mesh: Mesh) -> TrainState:
    """The sharding of every leaf: parameters and optimizer state divided, `extra` by `layout`."""
    words = ("replicated", "parameters", layout, "parameters", "replicated")
    parts = (state.step, state.params, state.extra, state.opt_state, state.probe)
    return TrainState(*parallel.shardings(words, parts, mesh))


def abstract_state(init: Callable[[], TrainState], method: Method, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, for restoring a checkpoint onto this mesh."""
    abstract = jax.eval_shape(init)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract,
        state_shardings(abstract, method.layout, mesh),
    )


def born_sharded(init: Callable[[], TrainState], method: Method, mesh: Mesh) -> TrainState:
    """Makes the state directly on the devices that will hold it."""
    # XLA's CPU backend spends seconds on optimising random draws that run once.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    shardings = state_shardings(jax.eval_shape(init), method.layout, mesh)
    return jax.jit(init, out_shardings=shardings, compiler_options=options)()


def make_train_step(
    method: Method,
    tx: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    probe: Probe,
    *,
    seed: int,
    mesh: Mesh,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
    microbatch: int = 0,
    noise_scale: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns (state, batch) -> (state, metrics), to be jitted with the state donated.

    The metrics are scalars: "loss", "grad_norm" (of all parameters together), "lr", the batch's
    `fingerprint` as "batch_hash", what the
    method's objective measures, and where there is an output "features" those of `health.signals`
    (the method's own go first where names are equal), with labels also those of the `Probe`.

    Args:
      schedule: the learning rate that `tx` uses at a step; only logged here.
      seed: root of all randomness; step k draws from fold_in(key(seed), k).
      prepare: per-example work on the device before `encode` (colour augmentation).
      microbatch: global rows encoded at once, 0 for all. The gradient is that of the whole batch
        whatever the objective, as long as no normalisation group crosses a chunk.
      noise_scale: with micro-batches, also measure the gradient's noise and signal. Devices then
        add up their gradients after every chunk instead of once.
    """

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array) -> tuple[dict, Tree]:
        return method.encode(params, extra, prepare(batch), key)

    value_and_grad = _chunked(mesh, microbatch, noise_scale) if microbatch else _whole
    root = jax.random.key(seed)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        encode_key, objective_key = jax.random.split(jax.random.fold_in(root, state.step + 1))
        # The method never sees the labels: they stay behind here.
        inputs = {name: value for name, value in batch.items() if name != "label"}
        layouts = state_shardings(state, method.layout, mesh)
        before = parallel.replicate_parameters(method.layout, state.extra, mesh)

        def objective(params, outputs):
            return method.objective(params, before, outputs, objective_key, state.step)

        (loss, (extra, metrics), outputs, stats), grads, measured = value_and_grad(
            lambda params, chunk: encode(params, before, chunk, encode_key),
            objective,
            parallel.replicate_parameters("parameters", state.params, mesh),
            inputs,
        )
        grads = parallel.constrain(grads, layouts.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
            "batch_hash": fingerprint(batch),
            **(collapse.signals(outputs["features"]) if "features" in outputs else {}),
            **metrics,
            **measured,
        }
        probe_state = state.probe
        if probe_state:
            probe_state, probed = probe.update(probe_state, outputs["features"], batch["label"])
            metrics |= probed
        new = TrainState(
            step=state.step + 1,
            params=params,
            extra=method.after_update(params, extra, stats, state.step),
            opt_state=opt_state,
            probe=probe_state,
        )
        return parallel.constrain(new, layouts), metrics

    return train_step


def _whole(encode, objective, params: Tree, batch: Batch):
    """Loss and gradient in one pass: ((loss, aux, outputs, stats), gradient, metrics)."""

    def loss_fn(params):
        outputs, stats = encode(params, batch)
        loss, aux = objective(params, outputs)
        return loss, (aux, outputs, stats)

    (loss, (aux, outputs, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return (loss, aux, outputs, stats), grads, {}


def _chunked(mesh: Mesh, microbatch: int, noise_scale: bool):
    """As `_whole`, encoding `microbatch` rows at a time (GradCache, arXiv 2101.06983, section 3).

    Encode every chunk without gradient; take the objective's gradient with respect to all
    outputs; encode each chunk again under its vjp. Memory holds one chunk's activations.
    """

    def split(x: jax.Array) -> jax.Array:
        # A chunk takes the same rows of every device, so that no image moves.
        chunks = x.shape[0] // microbatch
        x = x.reshape(mesh.size, chunks, -1, *x.shape[1:]).swapaxes(0, 1)
        x = x.reshape(chunks, microbatch, *x.shape[3:])
        return jax.lax.with_sharding_constraint(
            x, NamedSharding(mesh, PartitionSpec(None, parallel.ROWS))
        )

    def merge(x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], mesh.size, -1, *x.shape[2:]).swapaxes(0, 1)
        x = x.reshape(-1, *x.shape[3:])
        return jax.lax.with_sharding_constraint(x, parallel.rows(mesh))

    def value_and_grad(encode, objective, params: Tree, batch: Batch):
        chunks = jax.tree.map(split, batch)
        outputs, stats = jax.lax.map(lambda chunk: encode(params, chunk), chunks)
        outputs = jax.tree.map(merge, outputs)
        # Running statistics move linearly with a chunk's statistics, so their mean is exact.
        stats = jax.tree.map(lambda s: s.mean(0), stats)
        smooth, discrete = _partition(outputs)

        def of_outputs(params, smooth):
            return objective(params, smooth | discrete)

        (loss, aux), (grads, cotangents) = jax.value_and_grad(
            of_outputs, argnums=(0, 1), has_aux=True
        )(params, smooth)

        def accumulate(carry, chunk_and_cotangent):
            total, squares = carry
            chunk, cotangent = chunk_and_cotangent
            _, vjp = jax.vjp(lambda p: _partition(encode(p, chunk)[0])[0], params)
            (part,) = vjp(cotangent)
            if noise_scale:
                squares += optax.tree.norm(part, squared=True)
            return (jax.tree.map(jnp.add, total, part), squares), None

        start = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))
        (total, squares), _ = jax.lax.scan(
            accumulate, start, (chunks, jax.tree.map(split, cotangents))
        )
        measured = {}
        if noise_scale:
            measured = _gradient_noise(total, squares, microbatch, len(batch["index"]))
        return (loss, aux, outputs, stats), jax.tree.map(jnp.add, grads, total), measured

    return value_and_grad


def _partition(outputs: dict) -> tuple[dict, dict]:
    """Outputs that have a gradient, and integers, which have none."""
    smooth = {n: x for n, x in outputs.items() if jnp.issubdtype(x.dtype, jnp.inexact)}
    return smooth, {n: x for n, x in outputs.items() if n not in smooth}


def _gradient_noise(total: Tree, squares: jax.Array, small: int, big: int) -> dict[str, jax.Array]:
    """Unbiased estimates from the gradients of the chunks, whose sum is `total`.

    Args:
      squares: sum of the chunks' squared norms, each as its share of `total`.
      small, big: images of a chunk and of the batch.

    Returns:
      "gradient_noise": trace of the covariance of one image's gradient; "gradient_signal": squared
      norm of the true gradient, below 0 by chance where it drowns. Each step's are rough: the noise
      scale is the ratio of their means over many steps. {} if there is one chunk.

    Source: McCandlish et al. (arXiv 1812.06162), appendix A.1. The objective's coupling of the
    images is held fixed: a chunk's gradient is its part of the whole batch's.
    """
    chunks = big // small
    if chunks == 1:
        return {}
    of_big = optax.tree.norm(total, squared=True)
    of_small = chunks * squares
    return {
        "gradient_noise": (of_small - of_big) * big / (chunks - 1),
        "gradient_signal": (chunks * of_big - of_small) / (chunks - 1),
    }
