"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709)."""

from functools import partial

import flax.linen as nn

from ssl_jax.losses import debiased, decoupled, hard_negatives, nt_xent
from ssl_jax.methods import Method, Run
from ssl_jax.methods._joint import joint_embedding, scaled
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
) -> Method:
    """SimCLR (arXiv 2002.05709, section 2.1): two views, one forward, NT-Xent over the batch.

    Three other losses treat the negatives differently (`losses.contrastive`): "decoupled" (Yeh et
    al., arXiv 2110.06848) leaves the positive out of the denominator, and can be negative.
    "debiased" (Chuang et al., arXiv 2007.00224) subtracts the expected share of negatives that have
    the anchor's own class. "hard_negatives" (Robinson et al., arXiv 2010.04592) does so, too, and
    gives negatives that are close to the anchor a larger weight.

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

    Raises:
      ValueError: if the loss is unknown, the scale is not above 0, or the run does not have two
        views of one size. The parameters of the loss are checked when it is traced.
    """
    losses = {
        "nt_xent": partial(nt_xent, temperature=temperature),
        "decoupled": partial(decoupled, temperature=temperature),
        "debiased": partial(debiased, temperature=temperature, class_prior=class_prior),
        "hard_negatives": partial(
            hard_negatives,
            temperature=temperature,
            class_prior=class_prior,
            concentration=concentration,
        ),
    }
    if loss not in losses:
        raise ValueError(f"unknown loss {loss!r}; choose one of: {', '.join(losses)}")
    head = ProjectionHead(
        depth=head_depth,
        hidden_dim=hidden_dim or None,
        output_dim=output_dim,
        dtype=encoder.dtype,
    )
    return joint_embedding(encoder, head, run, scaled(losses[loss], scale))
