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
    apart: bool = True,
    last_bias: bool = False,
) -> Method:
    """VICReg (arXiv 2105.04906, section 4): similar views, with spread and uncorrelated dimensions.

    The expander has three layers, with BatchNorm and ReLU after the first two.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      sim: weight of the invariance term, lambda in the paper.
      std: weight of the variance term, mu in the paper.
      cov: weight of the covariance term, nu in the paper.
      hidden_dim: width of the expander's hidden layers.
      output_dim: width of the embeddings.
      apart: whether each view has its own BatchNorm statistics, as in the authors' code, which
        forwards the views one by one. False shares the statistics between both views.
      last_bias: whether the last layer has a bias; the authors' code has none.

    Raises:
      ValueError: if the run does not have two views of one size.
    """
    widths = (hidden_dim, hidden_dim, output_dim)
    head = MLP(widths, last_bias=last_bias, dense_init="torch", dtype=encoder.dtype)
    loss = partial(vicreg, sim=sim, std=std, cov=cov)
    return joint_embedding(encoder, head, run, loss, apart=apart)
