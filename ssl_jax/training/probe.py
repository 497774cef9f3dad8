"""The online linear probe, which measures features during training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax.methods import Tree

PROBE_LEARNING_RATE = 1e-3


class Probe(NamedTuple):
    """Softmax regression on features, trained by Adam at the same time as the method.

    The probe stops the gradient of the features and has a separate optimizer. Labels therefore
    affect only the probe.
    """

    num_classes: int  # 0 switches the probe off

    @property
    def tx(self) -> optax.GradientTransformation:
        """The probe's optimizer."""
        return optax.adam(PROBE_LEARNING_RATE)

    def init(self, feature_dim: int) -> Tree:
        """Returns zero weights for features of width `feature_dim`; {} without classes."""
        if not self.num_classes:
            return {}
        params = {
            "kernel": jnp.zeros((feature_dim, self.num_classes)),
            "bias": jnp.zeros((self.num_classes,)),
        }
        return {"params": params, "opt_state": self.tx.init(params)}

    def update(self, state: Tree, features: jax.Array, label: jax.Array) -> tuple[Tree, dict]:
        """Takes one optimization step.

        Args:
          state: state of `init` or of the last `update`.
          features: [b, v, f], features of the batch's views.
          label: int32 [b]; -1 means that the label is missing.

        Returns:
          (new state, {"probe_loss", "probe_accuracy"}); both metrics are measured before the step.
        """
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
