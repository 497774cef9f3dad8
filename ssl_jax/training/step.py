"""The training step: encode, objective, gradient and update over the global batch.

One pure function, jitted once. It does not depend on the method, the modality, or the number of
devices and hosts.
"""

from collections.abc import Callable

import jax
import optax
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.methods import Batch, Method, Tree
from ssl_jax.training import gradient
from ssl_jax.training.batch_hash import batch_hash
from ssl_jax.training.collapse import collapse_signals
from ssl_jax.training.probe import Probe
from ssl_jax.training.state import TrainState, state_shardings

Metrics = dict[str, jax.Array]


def make_train_step(
    method: Method,
    tx: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    probe: Probe,
    *,
    seed: int,
    mesh: Mesh,
    device: Callable[[Batch], Batch] = lambda batch: batch,
    microbatch: int = 0,
    noise_scale: bool = False,
    supervised: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns (state, batch) -> (state, metrics), to be jitted with the state donated.

    The metrics are scalars:

    * "loss"; "grad_norm", the norm of the whole gradient; "lr"; "batch_hash", a hash of the batch;
    * the method's metrics;
    * `collapse_signals`, if `encode` returns "features"; the method's metrics take precedence;
    * the metrics of the `Probe`, if the data have labels.

    Args:
      method: the self-supervised method, or the fine-tuning of `finetuning.make`.
      tx: the optimizer.
      schedule: the learning rate that `tx` uses at a step; only logged here.
      probe: the online probe.
      seed: root of all randomness; step k draws from fold_in(key(seed), k).
      mesh: the devices.
      device: `Input.device`, the per-example operations on the device before `encode`.
      microbatch: global number of examples encoded at once; 0 encodes the whole batch. The gradient
        equals that of the whole batch for every objective, as long as no normalisation group
        crosses a micro-batch.
      noise_scale: with micro-batches, also measure the gradient's noise and signal.
      supervised: pass the labels to the objective as the output "label" int32 [b]. Pre-training
        never does.
    """

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array) -> tuple[dict, Tree]:
        return method.encode(params, extra, device(batch), key)

    value_and_grad = gradient.whole_batch
    if microbatch:
        value_and_grad = gradient.micro_batched(mesh, microbatch, noise_scale)
    root = jax.random.key(seed)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        encode_key, objective_key = jax.random.split(jax.random.fold_in(root, state.step + 1))
        # `encode` never sees the labels, and the objective only in supervised training.
        inputs = {name: value for name, value in batch.items() if name != "label"}
        label = {"label": batch["label"]} if supervised else {}
        layouts = state_shardings(state, method.layout, mesh)
        before = parallel.replicate_parameters(method.layout, state.extra, mesh)

        def objective(params: Tree, outputs: dict) -> tuple:
            return method.objective(params, before, outputs | label, objective_key, state.step)

        (loss, (extra, metrics), outputs, stats), grads, measured = value_and_grad(
            lambda params, examples: encode(params, before, examples, encode_key),
            objective,
            parallel.replicate_parameters(method.params_layout, state.params, mesh),
            inputs,
        )
        grads = parallel.constrain(grads, layouts.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
            "batch_hash": batch_hash(batch),
            **(collapse_signals(outputs["features"]) if "features" in outputs else {}),
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
