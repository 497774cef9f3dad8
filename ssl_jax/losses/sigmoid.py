"""Pairwise sigmoid loss between the embeddings of two towers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.losses import softmax
from ssl_jax.losses.pairs import Rows, pair_sums
from ssl_jax.losses.softmax import Metrics

Tree = Any


class _Shared(NamedTuple):
    """Scalars that the body needs, without gradient."""

    bias: jax.Array


def siglip(
    image: jax.Array,
    text: jax.Array,
    *,
    temperature: float | jax.Array,
    bias: float | jax.Array,
    transport: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Pairwise sigmoid loss: each of the n² pairs is classified as matching or not.

    The logit of a pair is cosine / temperature + bias. The loss is the sum over all pairs of
    log(1 + exp(-z logit)), divided by n, with z = 1 for row i of both towers and z = -1 for all
    other pairs. Memory grows linearly with n: the n x n logits are never held at once.

    Args:
      image: [n, d], n >= 2, any length (normalised here).
      text: [n, d]. Row i is the partner of row i of `image`.
      temperature: positive; may be learned. The paper's t is 1 / temperature. No temperature is too
        low for the dtype, unlike in the softmax losses.
      bias: number that is added to all logits; may be learned.
      transport: as in `contrastive.nt_xent`.

    Returns:
      (loss, metrics). The loss is a scalar in nats. Both towers, temperature and bias receive
      gradient. Metrics, without gradient:
      "contrastive_accuracy": fraction of images whose partner is closer than all other texts.
      "contrastive_chance": accuracy of guessing, 1 / n.
      "positive_probability": mean probability sigmoid(logit) that the loss gives to partners.
      "negative_probability": mean probability that it gives to other pairs.
      "alignment": mean squared distance between unit-length partners.

    Raises:
      ValueError: if the shapes differ or are not [n, d] with n >= 2, the mesh's devices do not
        divide n, or the temperature is a Python number that is not positive.

    Source: SigLIP (Zhai et al., arXiv 2303.15343), section 3.2 and algorithm 1.
    """
    if image.ndim != 2 or image.shape != text.shape or len(image) < 2:
        raise ValueError(
            f"embeddings have shapes {image.shape} and {text.shape}; both must be [n, d] with n at "
            "least 2"
        )
    if isinstance(temperature, int | float | np.number) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    dtype = jnp.promote_types(image.dtype, text.dtype)
    image, text = image.astype(dtype), text.astype(dtype)
    product_dtype = softmax.product_dtype(image)
    x, y = softmax.normalise(image), softmax.normalise(text)
    temperature, bias = jnp.asarray(temperature, x.dtype), jnp.asarray(bias, x.dtype)
    x, y = (unit * lax.rsqrt(temperature) for unit in (x, y))
    positive = (x * y).sum(-1)
    scale = softmax.Scale(lax.stop_gradient(temperature), jnp.zeros((), x.dtype))
    threshold = softmax.rank_threshold(x, y, scale, product_dtype)
    group = jnp.arange(len(x), dtype=jnp.int32)
    losses, monitors = pair_sums(
        _body,
        Rows(x, group, {"threshold": threshold}),
        Rows(y, group),
        shared=_Shared(lax.stop_gradient(bias)),
        transport=transport,
        dtype=product_dtype,
    )
    # The engine differentiates by the logits only. The derivative of a row's losses by the bias is
    # the sum of its probabilities, which the engine has summed.
    monitors = lax.stop_gradient(monitors)
    losses = losses + monitors["probability"] * (bias - lax.stop_gradient(bias))
    loss = (losses + jax.nn.softplus(-positive - bias)).mean()
    return loss, _metrics(monitors, *lax.stop_gradient((positive, temperature, bias)))


def _body(logits: jax.Array, own: Tree, other: Tree, shared: _Shared) -> tuple[Tree, Tree]:
    """Body for `pair_sums`: the loss of a pair that does not match, and what `_metrics` sums."""
    del other
    biased = logits + shared.bias
    monitors = {
        "probability": jax.nn.sigmoid(biased),
        "closer": (logits >= own["threshold"]).astype(logits.dtype),
    }
    return jax.nn.softplus(biased), monitors


def _metrics(
    monitors: Tree, positive: jax.Array, temperature: jax.Array, bias: jax.Array
) -> Metrics:
    n = len(positive)
    return {
        "contrastive_accuracy": (monitors["closer"] < 1).mean(dtype=positive.dtype),
        "contrastive_chance": jnp.asarray(1 / n, positive.dtype),
        "positive_probability": jax.nn.sigmoid(positive + bias).mean(),
        "negative_probability": monitors["probability"].mean() / (n - 1),
        "alignment": 2 - 2 * temperature * positive.mean(),
    }
