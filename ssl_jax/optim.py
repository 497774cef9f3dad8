"""Optimizers, learning-rate rules and schedules, parameter masks.

Everything is `optax`; what is ours is which parameters are decayed and adapted, and the rules that
scale the learning rate with the batch.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

NAMES = ("adamw", "lars", "sgd")
LR_RULES = ("constant", "linear", "sqrt")
Tree = Any
Schedule = Callable[[Any], jax.Array]


def learning_rate(base: float, rule: str, batch_size: int) -> float:
    """Peak learning rate for a global batch of `batch_size` images.

    Args:
      rule: "constant": base; "linear": base * batch_size / 256; "sqrt": base * sqrt(batch_size).
        SimCLR's 0.3 linear and 0.075 sqrt are both 4.8 at 4096 (arXiv 2002.05709, appendix B.1).

    Raises:
      ValueError: for another rule.
    """
    if rule not in LR_RULES:
        raise ValueError(f"unknown learning-rate rule {rule!r}; there are: {', '.join(LR_RULES)}")
    factor = {"constant": 1.0, "linear": batch_size / 256, "sqrt": math.sqrt(batch_size)}
    return base * factor[rule]


def schedule(peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Linear warm-up from 0, then half a cosine to 0, as in SimCLR's `model_util.py`.

    The first update is step 0 and has, with warm-up, learning rate 0: step s < warmup_steps has
    peak * s / warmup_steps. The peak is reached at step warmup_steps and the zero at total_steps,
    one step after the last update.

    Returns:
      step (int or integer array []) -> float32 [].

    Raises:
      ValueError: unless 0 <= warmup_steps <= total_steps.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"{warmup_steps} steps of warm-up do not fit into {total_steps} steps in all"
        )

    def rate(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        rising = step / max(warmup_steps, 1)
        done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
        return peak * jnp.where(step < warmup_steps, rising, falling)

    return rate


def is_weight(params: Tree) -> Tree:
    """True for kernels; False for biases and for scales of normalisation layers (one axis)."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make(
    name: str,
    *,
    lr: float,
    lr_rule: str,
    batch_size: int,
    warmup_steps: int,
    total_steps: int,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    b2: float = 0.999,
    trust_coefficient: float = 0.001,
) -> tuple[optax.GradientTransformation, Schedule]:
    """Makes an optimizer and its schedule; biases and normalisation parameters are never decayed.

    Args:
      name: "lars": SimCLR's `lars_optimizer.py` (You et al. 2017, arXiv 1708.03888), with the
        learning rate inside the momentum buffer, biases and normalisation neither decayed nor
        adapted. "sgd": L2 decay added to the gradient before momentum. "adamw": decoupled decay.
      lr, lr_rule, batch_size: see `learning_rate`.
      warmup_steps, total_steps: see `schedule`.
      momentum: of lars and sgd; for adamw the decay b1 of the first moment.
      nesterov: of lars and sgd.
      b2: adamw's decay of the second moment.
      trust_coefficient: of lars (eta).

    Returns:
      (transformation, schedule); the schedule is for logging, the transformation holds its own.

    Raises:
      ValueError: for an unknown optimizer or rule, or a warm-up longer than the run.
    """
    if name not in NAMES:
        raise ValueError(f"unknown optimizer {name!r}; there are: {', '.join(NAMES)}")
    rate = schedule(learning_rate(lr, lr_rule, batch_size), warmup_steps, total_steps)
    if name == "lars":
        tx = optax.lars(
            rate,
            weight_decay=weight_decay,
            weight_decay_mask=is_weight,
            trust_coefficient=trust_coefficient,
            trust_ratio_mask=is_weight,
            momentum=momentum,
            nesterov=nesterov,
        )
    elif name == "sgd":
        tx = optax.chain(
            optax.add_decayed_weights(weight_decay, mask=is_weight),
            optax.sgd(rate, momentum=momentum, nesterov=nesterov),
        )
    else:
        tx = optax.adamw(rate, b1=momentum, b2=b2, weight_decay=weight_decay, mask=is_weight)
    return tx, rate


def table(params: Tree, name: str, weight_decay: float) -> str:
    """Which parameters the optimizer `name` decays and adapts: one line each, totals last.

    Args:
      params: arrays or ShapeDtypeStructs.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    rows = [("parameter", "shape", "size", "decayed", "adapted")]
    total = decayed = adapted = 0
    for path, leaf in leaves:
        size = math.prod(leaf.shape)
        decays = leaf.ndim > 1 and weight_decay > 0
        adapts = leaf.ndim > 1 and name == "lars"
        total, decayed, adapted = total + size, decayed + decays * size, adapted + adapts * size
        label = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        rows.append((label, shape, f"{size:,}", _mark(decays), _mark(adapts)))
    rows.append((f"total ({len(leaves)})", "", f"{total:,}", f"{decayed:,}", f"{adapted:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]

    def line(row: tuple[str, ...]) -> str:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        return "  ".join(left + right)

    return "\n".join(map(line, rows))


def _mark(flag: bool) -> str:
    return "yes" if flag else "-"
