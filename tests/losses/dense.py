"""Oracles: the losses written out over full matrices, as their papers state them.

Run in float64 under `jax.enable_x64`; gradients come from autodiff. Nothing here is shared with the
package.
"""

import jax.numpy as jnp
import numpy as np


def _unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def _views(z, temperature):
    """Exponentials of the logits: (positive [2b], negatives [2b, 2b] with zeros elsewhere)."""
    rows = _unit(z).reshape(-1, z.shape[-1])
    i = np.arange(len(rows))
    e = jnp.exp(rows @ rows.T / temperature)
    return e[i, i ^ 1], jnp.where(i[:, None] // 2 == i[None, :] // 2, 0, e)


def nt_xent(z, temperature, queue=None):
    positive, negatives = _views(z, temperature)
    total = positive + negatives.sum(1)
    if queue is not None:
        total += jnp.exp(_unit(z).reshape(-1, z.shape[-1]) @ _unit(queue).T / temperature).sum(1)
    return -jnp.log(positive / total).mean()


def decoupled(z, temperature):
    positive, negatives = _views(z, temperature)
    return -jnp.log(positive / negatives.sum(1)).mean()


def debiased(z, temperature, class_prior=0.1):
    positive, negatives = _views(z, temperature)
    n = len(positive) - 2
    g = (negatives.sum(1) / n - class_prior * positive) / (1 - class_prior)
    g = jnp.maximum(g, jnp.exp(-1 / temperature))
    return -jnp.log(positive / (positive + n * g)).mean()


def hard_negatives(z, temperature, concentration=1.0, class_prior=0.1):
    positive, negatives = _views(z, temperature)
    n = len(positive) - 2
    mask = negatives > 0
    weights = jnp.where(mask, jnp.where(mask, negatives, 1) ** concentration, 0)
    weights = weights / (weights.sum(1, keepdims=True) / n)
    g = ((weights * negatives).sum(1) / n - class_prior * positive) / (1 - class_prior)
    g = jnp.maximum(g, jnp.exp(-1 / temperature))
    return -jnp.log(positive / (positive + n * g)).mean()


def info_nce(query, key, temperature, queue=None):
    query, key = _unit(query), _unit(key)
    if queue is None:
        e = jnp.exp(query @ key.T / temperature)
        return -jnp.log(jnp.diagonal(e) / e.sum(1)).mean()
    positive = jnp.exp((query * key).sum(1) / temperature)
    return -jnp.log(
        positive / (positive + jnp.exp(query @ _unit(queue).T / temperature).sum(1))
    ).mean()


def paired_info_nce(x, y, temperature):
    return (info_nce(x, y, temperature) + info_nce(y, x, temperature)) / 2


def supervised_contrastive(z, label, temperature):
    v = z.shape[1]
    rows = _unit(z).reshape(-1, z.shape[-1])
    label = np.where(label < 0, -1 - np.arange(len(label)), label).repeat(v)
    others = ~np.eye(len(rows), dtype=bool)
    logits = rows @ rows.T / temperature
    log_total = jnp.log(jnp.where(others, jnp.exp(logits), 0).sum(1))
    same = others & (label[:, None] == label[None, :])
    count = same.sum(1)
    losses = jnp.where(same, log_total[:, None] - logits, 0).sum(1) / np.maximum(count, 1)
    return losses.sum() / (count > 0).sum()
