"""Optimizers, learning-rate rules and schedules.

Everything is `optax`; what is ours is which parameters are decayed and adapted, the rules that
scale the learning rate with the batch, and how parts of a model get optimizers of their own.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_jax.optim import LR_RULES, NAMES, SCHEDULES, parameters
from ssl_jax.optim.parameters import is_weight

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


def rate_schedule(
    peak: float,
    warmup_steps: int,
    total_steps: int,
    *,
    name: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop: float = 0.1,
) -> Schedule:
    """Linear warm-up from 0 to `peak`, then what `name` says.

    The first update is step 0 and has, with warm-up, learning rate 0: step s < warmup_steps has
    peak * s / warmup_steps. The peak is reached at step warmup_steps.

    Args:
      name: "cosine": half a cosine, as in SimCLR's `model_util.py`, to 0 at total_steps, one step
        after the last update. "step": times `drop` at each of `drops`. "constant": the peak.
      drops: fractions of total_steps, warm-up counted: 0.6 and 0.8 of 200 epochs are the epochs
        120 and 160 of MoCo (arXiv 1911.05722, section 4), and scale with a shorter run.

    Returns:
      step (int or integer array []) -> float32 [].

    Raises:
      ValueError: unless 0 <= warmup_steps <= total_steps, for another name, and for drops that
        are no fractions.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"{warmup_steps} steps of warm-up do not fit into {total_steps} steps in all"
        )
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; there are: {', '.join(SCHEDULES)}")
    if not all(0 < part < 1 for part in drops):
        raise ValueError(f"drops={drops!r}: fractions of the run, each in (0, 1)")

    def after(step: jax.Array) -> Any:
        if name == "cosine":
            return _half_cosine((step - warmup_steps) / max(total_steps - warmup_steps, 1))
        if name == "step":
            return math.prod(jnp.where(step < part * total_steps, 1.0, drop) for part in drops)
        return 1.0

    def rate(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        rising = step / max(warmup_steps, 1)
        return peak * jnp.where(step < warmup_steps, rising, after(step))

    return rate


def _half_cosine(done: jax.Array) -> jax.Array:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))


def _decay_schedule(start: float, end: float | None, total_steps: int) -> float | Schedule:
    if end is None:
        return start
    return lambda step: end + (start - end) * _half_cosine(step / total_steps)


def single(
    name: str,
    *,
    lr: float,
    lr_rule: str,
    batch_size: int,
    warmup_steps: int,
    total_steps: int,
    weight_decay: float,
    weight_decay_end: float | None = None,
    schedule: str = "cosine",
    drops: Sequence[float] = (0.6, 0.8),
    drop: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    b2: float = 0.999,
    trust_coefficient: float = 0.001,
    lr_in_momentum: bool = True,
) -> tuple[optax.GradientTransformation, Schedule]:
    """One optimizer for all parameters, and its schedule.

    Biases and normalisation parameters are never decayed, and not adapted by LARS.

    Args:
      name: "lars": SimCLR's `lars_optimizer.py` (You et al. 2017, arXiv 1708.03888). "sgd": L2
        decay added to the gradient before momentum. "adamw": decoupled decay, lr * decay * weight.
      lr, lr_rule, batch_size: see `learning_rate`.
      warmup_steps, total_steps, schedule, drops, drop: see `rate_schedule`.
      weight_decay_end: the decay goes there from weight_decay by half a cosine over total_steps,
        without warm-up, as in DINO (arXiv 2104.14294, section 3.2); None: it is constant.
      momentum: of lars and sgd; for adamw the decay b1 of the first moment.
      nesterov: of lars and sgd.
      b2: adamw's decay of the second moment.
      trust_coefficient: of lars (eta).
      lr_in_momentum: of lars. The momentum buffer sums updates that the learning rate has scaled,
        as in SimCLR; False: it sums unscaled ones, and the rate scales the buffer, as in BYOL and
        MoCo v3. The two differ while the rate changes.

    Returns:
      (transformation, schedule); the schedule is for logging, the transformation holds its own.

    Raises:
      ValueError: for an unknown optimizer, rule or schedule, or a warm-up longer than the run.
    """
    if name not in NAMES:
        raise ValueError(f"unknown optimizer {name!r}; there are: {', '.join(NAMES)}")
    peak = learning_rate(lr, lr_rule, batch_size)
    rate = rate_schedule(peak, warmup_steps, total_steps, name=schedule, drops=drops, drop=drop)
    decay = _decay_schedule(weight_decay, weight_decay_end, total_steps)
    if name == "adamw":
        tx = optax.adamw(rate, b1=momentum, b2=b2, weight_decay=decay, mask=is_weight)
    elif name == "sgd":
        tx = optax.chain(
            optax.add_decayed_weights(decay, mask=is_weight),
            optax.sgd(rate, momentum=momentum, nesterov=nesterov),
        )
    else:
        scale = optax.scale_by_learning_rate(rate)
        trace = optax.trace(decay=momentum, nesterov=nesterov)
        tx = optax.chain(
            optax.add_decayed_weights(decay, mask=is_weight),
            optax.masked(
                optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient), is_weight
            ),
            *((scale, trace) if lr_in_momentum else (trace, scale)),
        )
    return tx, rate


def make(
    name: str,
    *,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    frozen: Sequence[str] = (),
    clip_norm: float = 0.0,
    **settings: Any,
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimizer of a model, whose parts may have optimizers of their own; and its schedule.

    Args:
      name, settings: of `single`, for all parameters that no group names.
      groups: {key of the parameters' dictionary: the settings, "name" among them, that differ
        for everything under it}.
      frozen: paths of parameters or modules, "encoder/patch_embed", that never change; they have
        no optimizer state.
      clip_norm: the gradient of all parameters that are not frozen is scaled down to this norm,
        before any optimizer sees it; 0: never.

    Returns:
      (transformation, schedule of `settings`); the schedule is for logging. The transformation's
      `init` raises ValueError for a group or a frozen path that names no parameter.

    Raises:
      ValueError: see `single`.
    """
    tx, rate = single(name, **settings)
    label = functools.partial(parameters.labels, groups=groups or (), frozen=frozen)
    if groups or frozen:
        transforms = {parameters.MAIN: tx, parameters.FROZEN: optax.set_to_zero()}
        for key, changes in (groups or {}).items():
            transforms[key], _ = single(**{"name": name, **settings, **changes})
        tx = optax.partition(transforms, label)
    if clip_norm:
        tx = _clipped(tx, clip_norm, label)
    return tx, rate


def _clipped(
    tx: optax.GradientTransformation, norm: float, label: Callable[[Any], Any]
) -> optax.GradientTransformation:
    """`tx` on clipped gradients. The state is that of `tx`: a run may go on with another norm."""

    def trained(tree: Any) -> Any:
        return jax.tree.map(lambda x: x != parameters.FROZEN, label(tree))

    clip = optax.masked(optax.clip_by_global_norm(norm), trained)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        grads, _ = clip.update(grads, clip.init(grads), params)
        return tx.update(grads, state, params)

    return optax.GradientTransformation(tx.init, update)
