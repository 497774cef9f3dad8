"""Siamese networks with pair distances (Hadsell et al. 2006) or triplets (FaceNet 2015)."""

from functools import partial

import flax.linen as nn

from ssl_jax.losses import margin_contrastive, symmetric_triplet, triplet
from ssl_jax.methods import Method, Run
from ssl_jax.methods._joint import joint_embedding
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    loss: str = "triplet",
    margin: float = 0.2,
    mining: str = "semi_hard",
    hidden_dim: int = 0,
    output_dim: int = 128,
) -> Method:
    """Siamese networks: pulls two views of one image together, pushes other images apart.

    The papers of both losses take pairs from labels or from known neighbours. Here, two views of
    one image are the positive pair, and all other images of the batch are negatives.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      loss: "margin", "triplet" or "symmetric_triplet". "margin" (Hadsell, Chopra and LeCun, CVPR
        2006) is half of d² for the positive pair and half of max(0, margin - d)² for negatives.
        "triplet" (FaceNet, arXiv 1503.03832) is a hinge on squared distances of unit vectors.
        "symmetric_triplet" (VSE++, arXiv 1707.05612) takes the negatives of the first view from the
        second views of other images, and those of the second view from the first views.
      margin: margin of the loss, in the unit of its distance.
      mining: negatives of the triplet losses: "semi_hard", "batch_hard" or "all".
      hidden_dim: width of the head's hidden layer; 0 uses the encoder's feature width.
      output_dim: width of the embeddings.

    Raises:
      ValueError: if the loss or mining is unknown, the margin is not positive, or there are not two
        views of one size. Mining and margin are checked when the loss is traced.
    """
    losses = {
        "margin": partial(margin_contrastive, margin=margin),
        "triplet": partial(triplet, margin=margin, mining=mining),
        "symmetric_triplet": partial(symmetric_triplet, margin=margin, mining=mining),
    }
    if loss not in losses:
        raise ValueError(f"unknown loss {loss!r}; choose one of: {', '.join(losses)}")
    head = MLP((hidden_dim, output_dim), dtype=encoder.dtype)
    return joint_embedding(encoder, head, run, losses[loss])
