"""Siamese networks: distances of pairs (Hadsell et al. 2006) and of triplets (FaceNet 2015)."""

from functools import partial

import flax.linen as nn

from ssl_jax.losses import margin_contrastive, triplet
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
    """Siamese networks: two views of an image near, views of other images a margin away.

    The paper of either loss takes pairs from labels or from known neighbours; here two views of
    one image are the positive pair and all other images of the batch the negatives.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      loss: "margin" (Hadsell, Chopra and LeCun, CVPR 2006: half of d^2 for the pair and of
        max(0, margin - d)^2 for the others) or "triplet" (FaceNet, arXiv 1503.03832: a hinge on
        squared distances of unit vectors).
      margin: of the loss, in its own distance.
      mining: of the triplet loss: "semi_hard", "batch_hard" or "all".
      hidden_dim: width of the head's hidden layer; 0 for the encoder's.
      output_dim: width of the embeddings.

    Raises:
      ValueError: unknown loss or mining, a margin that is not positive, or not two views.
    """
    losses = {
        "margin": partial(margin_contrastive, margin=margin),
        "triplet": partial(triplet, margin=margin, mining=mining),
    }
    if loss not in losses:
        raise ValueError(f"unknown loss {loss!r}; there are: {', '.join(losses)}")
    head = MLP((hidden_dim, output_dim), dtype=encoder.dtype)
    return joint_embedding(encoder, head, run, losses[loss])
