"""Optimizers, learning-rate rules and schedules.

The update rules are optax's. This module chooses which parameters are decayed and adapted, scales
the learning rate with the batch size, and gives parts of a model their own optimizers.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ssl_jax.optim import LR_RULES, NAMES, SCHEDULES, Turns, parameters
from ssl_jax.optim.parameters import is_any, is_weight

Schedule = Callable[[Any], jax.Array]
LEAST = 1e-4  # of the peak: end of the schedule "linear"


def learning_rate(base: float, rule: str, batch_size: int) -> float:
    """Returns the peak learning rate for a global batch size.

    The learning rate is the factor by which an update multiplies the mean gradient of the batch
    (for LARS and AdamW, the adapted gradient).

    Args:
      base: the peak itself ("constant"), the peak per 256 images of the batch ("linear"), or the
        peak per square root of the number of images ("sqrt").
      rule: "constant" returns base; "linear" returns base * batch_size / 256; "sqrt" returns
        base * sqrt(batch_size).
      batch_size: images in the global batch.

    Raises:
      ValueError: for an unknown rule.

    Source: Chen et al. (arXiv 2002.05709), appendix B.1. SimCLR's 0.3 with "linear" and 0.075
    with "sqrt" both give 4.8 at a batch of 4096.
    """
    if rule not in LR_RULES:
        raise ValueError(f"unknown learning-rate rule {rule!r}; choose from {', '.join(LR_RULES)}")
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
    """Returns a schedule: linear warm-up from 0 to `peak`, then the schedule `name`.

    Steps count from 0. Step s < warmup_steps has the rate peak * s / warmup_steps, so with warm-up
    the first update has rate 0. Step warmup_steps has the rate `peak`.

    Args:
      peak: learning rate per update, as `learning_rate` returns it.
      warmup_steps: number of updates before the peak.
      total_steps: number of updates of the run, warm-up included.
      name: "cosine": half a cosine from `peak` down to 0 at step total_steps, which is one step
        after the last update, as in SimCLR's `model_util.py`. "linear": a line from `peak` to 0
        there, but at least 1e-4 of `peak`, as in `word2vec.c`. "step": multiplied by `drop` at each
        of `drops`. "constant": `peak`.
      drops: positions of the drops, as fractions of total_steps. MoCo's drops at epochs 120 and
        160 of 200 are 0.6 and 0.8 (arXiv 1911.05722, section 4).
      drop: factor of each drop.

    Returns:
      Function step (int or integer array []) -> learning rate (float32 []).

    Raises:
      ValueError: unless 0 <= warmup_steps <= total_steps; for an unknown name; for drops outside
        (0, 1).
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"{warmup_steps} steps of warm-up do not fit into a run of {total_steps} steps"
        )
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; choose from {', '.join(SCHEDULES)}")
    if not all(0 < part < 1 for part in drops):
        raise ValueError(f"drops={drops!r} must be fractions of the run, each in (0, 1)")

    def factor_after_warmup(step: jax.Array) -> Any:
        if name == "cosine":
            return _half_cosine((step - warmup_steps) / max(total_steps - warmup_steps, 1))
        if name == "linear":
            return jnp.maximum(
                1 - (step - warmup_steps) / max(total_steps - warmup_steps, 1), LEAST
            )
        if name == "step":
            return math.prod(jnp.where(step < part * total_steps, 1.0, drop) for part in drops)
        return 1.0

    def rate(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warmup_factor = step / max(warmup_steps, 1)
        in_warmup = step < warmup_steps
        return peak * jnp.where(in_warmup, warmup_factor, factor_after_warmup(step))

    return rate


def _half_cosine(fraction: jax.Array) -> jax.Array:
    """Falls from 1 to 0 while `fraction` of the run rises from 0 to 1."""
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(fraction, 0, 1)))


def _decay_schedule(start: float, end: float | None, total_steps: int) -> float | Schedule:
    if end is None:
        return start
    return lambda step: end + (start - end) * _half_cosine(step / total_steps)


def single_optimizer(
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
    trust_clip: bool = False,
    lr_in_momentum: bool = True,
    decay_all: bool = False,
    adapt_all: bool = False,
    turns: Turns = (),
) -> tuple[optax.GradientTransformation, Schedule]:
    """Returns one optimizer for all parameters, and its learning-rate schedule.

    By default, weight decay and the LARS trust ratio apply only to parameters with more than one
    axis (`parameters.is_weight`), not to biases and normalisation parameters.

    Args:
      name: "lars": LARS (You et al., arXiv 1708.03888) as in SimCLR's `lars_optimizer.py`: L2
        decay is added to the gradient, then the trust ratio scales the gradient. "sgd": L2 decay
        is added to the gradient before momentum. "plain": subtracts rate * gradient, without decay,
        momentum or any state. "adamw": decoupled decay, the update also
        subtracts rate * decay * weight.
      lr, lr_rule, batch_size: base, rule and batch size of `learning_rate`.
      warmup_steps, total_steps, schedule, drops, drop: schedule of `rate_schedule`.
      weight_decay: coefficient of the decay at step 0.
      weight_decay_end: coefficient at step total_steps. The decay moves from weight_decay to it
        by half a cosine, without warm-up, as in DINO (arXiv 2104.14294, section 3.2). None keeps
        the decay constant.
      momentum: momentum of lars and sgd; decay rate b1 of AdamW's first moment.
      nesterov: use Nesterov momentum (lars and sgd only).
      b2: decay rate of AdamW's second moment.
      trust_coefficient: eta of LARS. The gradient g of a weight w, decay included, is scaled
        by the trust ratio eta * ‖w‖ / ‖g‖, or by 1 if either norm is 0. solo-learn
        divides by the sum of the norms of gradient and decay, not by the norm of their sum, and
        neither decays nor adapts a weight without gradient. Without decay, the two rules agree.
      trust_clip: divide the trust ratio by the learning rate of the step, then limit it to 1, as
        solo-learn's `clip_lr`. An update is then at most that of SGD. Below the limit it is
        eta * ‖w‖ long, whatever the rate. With lr_in_momentum, that holds for each term of the
        momentum buffer. Without it, the rate of a later step scales the earlier terms, too.
      lr_in_momentum: order of learning rate and momentum in LARS. True: the momentum buffer sums
        updates already scaled by the learning rate, as in SimCLR. False: the buffer sums unscaled
        updates and the rate scales the buffer, as in BYOL and MoCo v3. The two differ only while
        the rate changes.
      decay_all: decay every parameter, as PyTorch's optimizers do by default.
      adapt_all: LARS adapts every parameter, as the LARC of SwAV.
      turns: ranges of the run's steps in which the optimizer makes its updates; () for all steps.
        Rate and decay are those of the run's steps; the transformation counts its own updates.

    Returns:
      (transformation, schedule). The schedule counts the run's steps. It is for logging; the
      transformation applies it.

    Raises:
      ValueError: for an unknown optimizer, rule or schedule, or a warm-up longer than the run.
    """
    if name not in NAMES:
        raise ValueError(f"unknown optimizer {name!r}; choose from {', '.join(NAMES)}")
    if name == "plain" and (weight_decay or momentum):
        raise ValueError("plain has neither weight decay nor momentum: set both to 0, or take sgd")
    peak = learning_rate(lr, lr_rule, batch_size)
    rate = rate_schedule(peak, warmup_steps, total_steps, name=schedule, drops=drops, drop=drop)
    own_rate = _within(rate, turns)
    decay = _decay_schedule(weight_decay, weight_decay_end, total_steps)
    decay = _within(decay, turns) if callable(decay) else decay
    decayed = is_any if decay_all else is_weight
    if name == "adamw":
        tx = optax.adamw(own_rate, b1=momentum, b2=b2, weight_decay=decay, mask=decayed)
    elif name == "plain":
        tx = optax.sgd(own_rate)
    elif name == "sgd":
        tx = optax.chain(
            optax.add_decayed_weights(decay, mask=decayed),
            optax.sgd(own_rate, momentum=momentum, nesterov=nesterov),
        )
    else:
        if trust_clip:
            trust = _scale_by_clipped_trust_ratio(trust_coefficient, own_rate)
        else:
            trust = optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient)
        scale = optax.scale_by_learning_rate(own_rate)
        trace = optax.trace(decay=momentum, nesterov=nesterov)
        tx = optax.chain(
            optax.add_decayed_weights(decay, mask=decayed),
            optax.masked(trust, is_any if adapt_all else is_weight),
            *((scale, trace) if lr_in_momentum else (trace, scale)),
        )
    return tx, rate


def _within(schedule: Schedule, turns: Turns) -> Schedule:
    """Returns the schedule, by the run's steps, of an optimizer that counts only its turns."""
    if not turns:
        return schedule

    def rate(count: Any) -> jax.Array:
        step = count + turns[0][0]
        for (_, end), (first, _) in itertools.pairwise(turns):
            step = jnp.where(step >= end, step + first - end, step)
        return schedule(step)

    return rate


def _scale_by_clipped_trust_ratio(
    coefficient: float, rate: Schedule
) -> optax.GradientTransformation:
    """`optax.scale_by_trust_ratio` with the ratio divided by the rate and limited to 1."""

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: optax.ScaleByScheduleState, params: Any
    ) -> tuple[Any, optax.ScaleByScheduleState]:
        rate_now = rate(state.count)

        def scaled(update: jax.Array, weight: jax.Array) -> jax.Array:
            weight_norm, norm = optax.tree.norm(weight), optax.tree.norm(update)
            ratio = coefficient * weight_norm / norm
            # The rate is 0 in the first step of a warm-up, and the limit then applies.
            is_limited = (weight_norm == 0) | (norm == 0) | (ratio >= rate_now)
            return update * jnp.where(is_limited, 1.0, ratio / rate_now)

        count = optax.safe_increment(state.count)
        return jax.tree.map(scaled, updates, params), optax.ScaleByScheduleState(count)

    return optax.GradientTransformation(init, update)


def make(
    name: str,
    *,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    frozen: Sequence[str] = (),
    turns: Mapping[str, Turns] | None = None,
    clip_norm: float = 0.0,
    **settings: Any,
) -> tuple[optax.GradientTransformation, Schedule]:
    """Returns a model's optimizer, with separate optimizers for groups, and the main schedule.

    Args:
      name, settings: arguments of `single_optimizer` for all parameters outside groups.
      groups: top-level key of the parameters -> arguments of `single_optimizer` that differ for
        all parameters under that key; they may include "name".
      frozen: paths of parameters or modules that never change, such as "encoder/patch_embed".
        Frozen parameters have no optimizer state.
      turns: `Method.turns`: path of parameters -> ranges of steps (first, end) in which the
        optimizer updates the parameters under the path, at the run's rate and decay. In all other
        steps they and the optimizer's state do not change. A path belongs to the group of its
        first part.
      clip_norm: maximum L2 norm of the gradient of all parameters that are not frozen together.
        A longer gradient is scaled down before any optimizer uses it. 0 turns clipping off.

    Returns:
      (transformation, schedule of the main optimizer). The schedule is for logging. The
      transformation's `init` raises ValueError if a group, a turn or a frozen path matches no
      parameter.

    Raises:
      ValueError: for arguments that `single_optimizer` refuses.
    """
    tx, rate = single_optimizer(name, **settings)
    groups = groups or {}
    turns = turns or {}
    label = functools.partial(parameters.labels, groups=groups, frozen=frozen, turns=turns)
    if groups or frozen or turns:
        transforms = {parameters.MAIN: tx, parameters.FROZEN: optax.set_to_zero()}
        for key in (*groups, *(turns.keys() - groups.keys())):
            own = {"name": name, **settings, **groups.get(key.partition("/")[0], {})}
            transforms[key] = _in_turns(own, turns.get(key, ()))
        tx = optax.partition(transforms, label)
    if clip_norm:
        tx = _with_clipping(tx, clip_norm, label)
    return tx, rate


def _in_turns(settings: Mapping[str, Any], turns: Turns) -> optax.GradientTransformation:
    """Returns the optimizer of `settings`, which does nothing outside its turns."""
    tx, _ = single_optimizer(**settings, turns=turns)

    def has_turn(step: jax.Array) -> jax.Array:
        return functools.reduce(
            jnp.logical_or, [(first <= step) & (step < end) for first, end in turns]
        )

    return optax.conditionally_mask(tx, has_turn) if turns else tx


def _with_clipping(
    tx: optax.GradientTransformation, norm: float, label: Callable[[Any], Any]
) -> optax.GradientTransformation:
    """Clips gradients before `tx`.

    The optimizer state is that of `tx`, so that a run can resume with another norm or without one.
    """

    def is_trained(tree: Any) -> Any:
        return jax.tree.map(lambda x: x != parameters.FROZEN, label(tree))

    clip = optax.masked(optax.clip_by_global_norm(norm), is_trained)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        grads, _ = clip.update(grads, clip.init(grads), params)
        return tx.update(grads, state, params)

    return optax.GradientTransformation(tx.init, update)
