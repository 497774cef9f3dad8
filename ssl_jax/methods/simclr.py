"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709)."""

from functools import partial

import flax.linen as nn

from ssl_jax.losses import debiased, decoupled, hard_negatives, nt_xent
from ssl_jax.losses.penalty import weight_penalty
from ssl_jax.methods import Method, Run, _temperature
from ssl_jax.methods._adversarial import adversarial_embedding
from ssl_jax.methods._attack import Attack
from ssl_jax.methods._joint import Loss, joint_embedding, scaled
from ssl_jax.models.heads import ProjectionHead


def make(
    encoder: nn.Module,
    run: Run,
    *,
    temperature: float = 0.1,
    head_depth: int = 2,
    hidden_dim: int = 0,
    output_dim: int = 128,
    scale: float = 1.0,
    loss: str = "nt_xent",
    class_prior: float = 0.1,
    concentration: float = 1.0,
    temperature_schedule: str = "constant",
    temperature_end: float = 0.1,
    temperature_periods: float = 0.5,
    head_dropout: float = 0.0,
    head_penalty: str = "none",
    head_penalty_weight: float = 1e-4,
    attack_steps: int = 0,
    attack_epsilon: float = 0.0314,
    attack_step_size: float = 0.007,
    attack_weight: float = 0.00390625,
) -> Method:
    """SimCLR (arXiv 2002.05709, section 2.1): two views, one forward, NT-Xent over the batch.

    Three other losses treat the negatives differently (`losses.contrastive`): "decoupled" (Yeh et
    al., arXiv 2110.06848) leaves the positive out of the denominator, and can be negative.
    "debiased" (Chuang et al., arXiv 2007.00224) subtracts the expected share of negatives that have
    the anchor's own class. "hard_negatives" (Robinson et al., arXiv 2010.04592) does so, too, and
    gives negatives that are close to the anchor a larger weight.

    With `attack_steps`, SimCLR becomes adversarial training without labels (RoCL, Kim et al., arXiv
    2006.07589): a third view is the first view, changed within `attack_epsilon` to raise the loss
    (`_adversarial.adversarial_embedding`).

    Both views pass through encoder and projection head together and share their BatchNorm
    statistics, as in the authors' code. Features are the output of the encoder, before the head
    (section 4.2).

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      temperature: temperature of the softmax, at least 0.0149 (times 1 + concentration for
        hard_negatives), where float32 is exact.
      head_depth: number of layers of the projection head, 0 to 3; the paper uses 2.
      hidden_dim: width of the head's hidden layers; 0 uses the encoder's feature width, as in the
        authors' code.
      output_dim: width of the projections.
      scale: factor of the loss. The authors' code minimises the sum of the losses of both views,
        which is twice the mean over all projections, so the recipes set 2. Under LARS the factor
        cancels in the updates of weights, except that it divides the share of the weight decay;
        biases and normalisation parameters, which LARS does not adapt, move `scale` times as far.
      loss: "nt_xent", "decoupled", "debiased" or "hard_negatives".
      class_prior: probability in [0, 1) that a negative has the anchor's class, about 1 / classes.
        Used by "debiased" and "hard_negatives".
      concentration: weight of close negatives, at least 0. Used by "hard_negatives".
      temperature_schedule: "constant", "cosine" or "log" (`_temperature.make`).
      temperature_end: temperature after half a period of "cosine".
      temperature_periods: periods of "cosine" in the run: 0.5 falls from `temperature` to
        `temperature_end`, more swing between the two.
      head_dropout: dropout rate of the head's hidden activations, in [0, 1).
      head_penalty: penalty on the head's weights: "none", "l2" or "smooth_l1" (`losses.penalty`).
        A normalisation follows every layer of the head, so the size of its weights does not change
        what the head computes, only how fast the weights turn (arXiv 1706.05350).
      head_penalty_weight: factor of the penalty.
      attack_steps: steps of gradient ascent that make the attacked view; 0 makes none. Needs
        "nt_xent".
      attack_epsilon: largest change of a pixel in [0, 1]; 0.0314, 8/255, as the authors.
      attack_step_size: change of a pixel per step; 0.007 as the authors.
      attack_weight: weight of the additional contrast between the attacked and the second view;
        1/256 as the authors.

    Raises:
      ValueError: if the loss is unknown, the scale is not above 0, the schedule is refused
        (`_temperature.make`), the penalty is unknown, has no weights or a factor that is not
        above 0, the dropout is not in [0, 1) or has no hidden layer, a parameter of the attack is
        out of range, the attack is combined with an option that it lacks, or the run does not have
        two views of one size. The parameters of the loss are checked when it is traced.
    """
    if not 0 <= head_dropout < 1 or (head_dropout and head_depth < 2):
        raise ValueError(
            f"head_dropout must be in [0, 1), and 0 for a head without hidden layer; got "
            f"{head_dropout} with head_depth {head_depth}"
        )
    losses: dict[str, Loss] = {
        "nt_xent": nt_xent,
        "decoupled": decoupled,
        "debiased": partial(debiased, class_prior=class_prior),
        "hard_negatives": partial(
            hard_negatives, class_prior=class_prior, concentration=concentration
        ),
    }
    if loss not in losses:
        raise ValueError(f"unknown loss {loss!r}; choose one of: {', '.join(losses)}")
    head = ProjectionHead(
        depth=head_depth,
        hidden_dim=hidden_dim or None,
        output_dim=output_dim,
        dtype=encoder.dtype,
        dropout=head_dropout,
    )
    schedule = _temperature.make(
        temperature,
        run.total_steps,
        schedule=temperature_schedule,
        end=temperature_end,
        periods=temperature_periods,
        concentration=concentration if loss == "hard_negatives" else 0,
    )
    if head_penalty != "none" and not head_depth:
        raise ValueError(
            f"head_penalty={head_penalty!r} needs a head with weights: set method.head_depth to 1 "
            "or more"
        )
    if attack_steps:
        used = {
            "method.loss": loss != "nt_xent",
            "method.temperature_schedule": schedule.varies,
            "method.head_dropout": head_dropout > 0,
            "method.head_penalty": head_penalty != "none",
        }
        if unfit := [name for name, is_used in used.items() if is_used]:
            raise ValueError(
                f"attack_steps={attack_steps}: attacked views have no {', '.join(unfit)}; leave "
                "them at their defaults, or set method.attack_steps to 0"
            )
        attack = Attack(attack_steps, attack_epsilon, attack_step_size)
        return adversarial_embedding(
            encoder, head, run, attack, temperature=temperature, weight=attack_weight, scale=scale
        )
    return joint_embedding(
        encoder,
        head,
        run,
        scaled(losses[loss], scale),
        temperature=schedule,
        penalty=weight_penalty(head_penalty, head_penalty_weight),
    )
