"""VICReg: variance-invariance-covariance regularization (Bardes et al. 2021, arXiv 2105.04906)."""

from functools import partial

import flax.linen as nn

from ssl_jax.losses import vicreg
from ssl_jax.methods import Method, Run
from ssl_jax.methods._joint import joint_embedding
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    sim: float = 25.0,
    std: float = 25.0,
    cov: float = 1.0,
    hidden_dim: int = 8192,
    output_dim: int = 8192,
) -> Method:
    """VICReg (arXiv 2105.04906, section 4): similar views, with spread and uncorrelated dimensions.

    The expander has three layers, with BatchNorm and ReLU after the first two. Both views share
    their BatchNorm statistics; the authors' code forwards the views one by one.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      sim: weight of the invariance term, lambda in the paper.
      std: weight of the variance term, mu in the paper.
      cov: weight of the covariance term, nu in the paper.
      hidden_dim: width of the expander's hidden layers.
      output_dim: width of the embeddings.

    Raises:
      ValueError: if the run does not have two views of one size.
    """
    head = MLP((hidden_dim, hidden_dim, output_dim), dense_init="torch", dtype=encoder.dtype)
    return joint_embedding(encoder, head, run, partial(vicreg, sim=sim, std=std, cov=cov))
