"""Barlow Twins: self-supervised learning via redundancy reduction (arXiv 2103.03230)."""

from functools import partial

import flax.linen as nn

from ssl_jax.losses import barlow_twins
from ssl_jax.methods import Method, Run
from ssl_jax.methods._joint import joint_embedding, scaled
from ssl_jax.models.heads import MLP


def make(
    encoder: nn.Module,
    run: Run,
    *,
    lambda_: float = 0.005,
    scale: float = 1.0,
    hidden_dim: int = 8192,
    output_dim: int = 8192,
    apart: bool = True,
    last_bias: bool = False,
) -> Method:
    """Barlow Twins (arXiv 2103.03230, section 2): decorrelates the dimensions of two views.

    The projector has three layers, with BatchNorm and ReLU after the first two.

    Args:
      encoder: linen module, (images [n, h, w, 3], train) -> [n, f], with an attribute `dtype`.
      run: two views.
      lambda_: weight of the off-diagonal terms.
      scale: factor of the loss. Under LARS it sets the learning rate of biases and normalisation
        parameters relative to that of weights: the paper's rates, 0.0048 for biases and 0.2 for
        weights, correspond to 0.024 (section 2.2). The authors' optimizer has two rates and sees
        the unscaled gradient g and decay l w. A recipe therefore multiplies the weight decay by
        the same factor s: LARS divides s g + s l w by its norm, so weights w move as in the
        authors' code.
      hidden_dim: width of the projector's hidden layers.
      output_dim: width of the embeddings.
      apart: whether each view has its own BatchNorm statistics, as in the authors' code, which
        forwards the views one by one. False shares the statistics between both views.
      last_bias: whether the last layer has a bias; the authors' code has none.

    Raises:
      ValueError: if the run does not have two views of one size, or the scale is not above 0.
    """
    widths = (hidden_dim, hidden_dim, output_dim)
    head = MLP(widths, last_bias=last_bias, dense_init="torch", dtype=encoder.dtype)
    loss = scaled(partial(barlow_twins, lambda_=lambda_), scale)
    return joint_embedding(encoder, head, run, loss, apart=apart)
