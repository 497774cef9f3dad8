"""SimCLR: a simple framework for contrastive learning (Chen et al. 2020, arXiv 2002.05709)."""

import flax.linen as nn
import jax

from ssl_jax.losses import nt_xent
from ssl_jax.methods import Method, Run
from ssl_jax.methods._joint import joint_embedding
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
) -> Method:
    """SimCLR (arXiv 2002.05709, section 2.1): two views, one forward, NT-Xent over the batch.

    Both views pass through encoder and projection head together and share their BatchNorm
    statistics, as in the authors' code. Features are the output of the encoder, before the head
    (section 4.2).

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      temperature: temperature of the NT-Xent softmax.
      head_depth: number of layers of the projection head, 0 to 3; the paper uses 2.
      hidden_dim: width of the head's hidden layers; 0 uses the encoder's feature width, as in the
        authors' code.
      output_dim: width of the projections.
      scale: factor of the loss. The authors' code minimises the sum of the losses of both views,
        which is twice the mean over all projections, so the recipes set 2. Under LARS the factor
        cancels in the updates of weights, except that it divides the share of the weight decay;
        biases and normalisation parameters, which LARS does not adapt, move `scale` times as far.

    Raises:
      ValueError: if the run does not have two views of one size.
    """
    head = ProjectionHead(
        depth=head_depth,
        hidden_dim=hidden_dim or None,
        output_dim=output_dim,
        dtype=encoder.dtype,
    )

    def loss(z: jax.Array):
        value, metrics = nt_xent(z, temperature=temperature)
        return scale * value, metrics

    return joint_embedding(encoder, head, run, loss)
