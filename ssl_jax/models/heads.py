"""Heads between the features of the encoder and the loss."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.norm import BatchNorm

Tree = Any
# Distributions of the weights of `MLP`. Layers without a normalisation after them learn at a rate
# that depends on the norm of their weights, so that a head starts as in the source of its method.
DENSE_INITS = {
    "lecun_normal": nn.initializers.lecun_normal(),  # variance 1 / fan-in
    "torch": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # +-1 / sqrt(fan-in)
    "normal_0.02": nn.initializers.normal(0.02),
}


class ProjectionHead(nn.Module):
    """SimCLR's projection head: dense layers, each followed by batch normalisation.

    Dense layers have no bias, because normalisation would cancel it. All layers but the last end in
    ReLU. The last layer has no ReLU, and its normalisation has no bias. Weights are initialised
    from N(0, 0.01²).

    Attributes:
      depth: number of dense layers: 0 is the identity, 1 is linear, SimCLR has 2, SimCLR v2 has 3.
      hidden_dim: width of the layers before the last; None uses the input width (2048 after
        ResNet-50), as in SimCLR's code.
      output_dim: width of the last layer.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: dtype of dense layers and hidden activations; parameters are float32.
      dropout: probability in [0, 1) that training sets a hidden activation to 0.
      upto: number of layers to run, with the same parameters as in the whole head; None runs all.

    Source: SimCLR (arXiv 2002.05709), section 4.2. The paper leaves biases, normalisation and
    initialisation open; they follow google-research/simclr tf2/model.py (LinearLayer,
    ProjectionHead).
    """

    depth: int = 2
    hidden_dim: int | None = None
    output_dim: int = 128
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32
    dropout: float = 0.0
    upto: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> jax.Array:
        """Features [n, f] -> projections [n, output_dim] float32 (depth 0: x itself).

        Args:
          x: features.
          train: training mode.
          keys: a random key for each row, for dropout in training; unused without dropout and in
            initialisation.

        Raises:
          ValueError: if depth is negative, dropout is not in [0, 1), or dropout lacks its keys.
        """
        if self.depth < 0:
            raise ValueError(f"projection head depth must be at least 0, got depth {self.depth}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not train or self.dropout == 0 or self.is_initializing():
            keys = None
        elif keys is None:
            raise ValueError(f"dropout {self.dropout} needs a random key for each row in training")
        hidden_dim = self.hidden_dim or x.shape[-1]
        for i in range(self.depth if self.upto is None else self.upto):
            last = i == self.depth - 1
            x = nn.Dense(
                self.output_dim if last else hidden_dim,
                use_bias=False,
                kernel_init=nn.initializers.normal(0.01),
                dtype=self.dtype,
                name=f"dense{i}",
            )(x)
            # The loss normalises in float32; rounding its input to bfloat16 first would cost
            # accuracy.
            x = BatchNorm(
                group=self.bn_group,
                views=self.bn_views,
                use_bias=not last,
                dtype=jnp.promote_types(self.dtype, jnp.float32) if last else self.dtype,
                name=f"bn{i}",
            )(x, train)
            x = x if last else nn.relu(x)
            if keys is not None and not last:
                x = drop_activations(x, self.dropout, keys, i)
        return x


def drop_activations(x: jax.Array, rate: float, keys: jax.Array, layer: int) -> jax.Array:
    """Sets elements of x [n, ...] to 0 with probability `rate` and divides the others by 1 - rate.

    What is dropped in a row depends only on the row's key and on the layer, so that rows may be
    computed in chunks.

    Args:
      x: activations.
      rate: in [0, 1).
      keys: random keys [n].
      layer: number of the layer; layers draw independently.

    Source: Srivastava et al., Dropout (JMLR 2014), section 4, with the rescaling in training.
    """

    def kept(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(kept)(keys), x / (1 - rate), 0)


def infer_projection_head(
    params: Tree, upto: int, dtype: DTypeLike = jnp.float32
) -> ProjectionHead | None:
    """Infers the projection head that has the given parameters, and runs it up to a layer.

    Args:
      params: parameters of a whole head, or of its first layers.
      upto: number of layers to run, at least 1.
      dtype: dtype of dense layers and hidden activations.

    Returns:
      The head, or None if the parameters belong to another kind of head or have fewer layers.
    """
    count = sum(name.startswith("dense") for name in params)
    if not 0 < upto <= count or params.keys() != {
        f"{kind}{i}" for kind in ("dense", "bn") for i in range(count)
    }:
        return None
    last = params[f"bn{count - 1}"]
    if "scale" not in last or any("bias" in params[f"dense{i}"] for i in range(count)):
        return None
    width = params["dense0"]["kernel"].shape[1]
    # The normalisation of the last layer has no bias. If it has one here, later layers were cut
    # off.
    depth = count + ("bias" in last)
    output = params[f"dense{count - 1}"]["kernel"].shape[1]
    return ProjectionHead(depth, width, output, dtype=dtype, upto=upto)


class Classifier(nn.Module):
    """Linear classifier, initialised with zeros.

    Maps features [n, f] to logits [n, classes] in float32 or wider.

    Attributes:
      classes: number of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        wide_dtype = jnp.promote_types(x.dtype, jnp.float32)
        return nn.Dense(
            self.classes, kernel_init=nn.initializers.zeros, dtype=wide_dtype, name="dense"
        )(x)


class MLP(nn.Module):
    """Dense layers with activations between them: projection and prediction heads of most methods.

    A layer has a bias unless a normalisation would cancel it; `last_bias` can omit that of the last
    layer.

    Attributes:
      widths: width of each layer, the output's last; 0 means the input width of the head.
      hidden_norm: whether batch normalisation precedes each activation.
      last_norm: normalisation after the last layer: "" for none, "affine" for batch normalisation,
        "plain" for batch normalisation without scale and bias.
      last_bias: whether the last layer has a bias if no normalisation follows it.
      activation: function between the layers.
      dense_init: initialisation of the dense layers: "lecun_normal" (a truncated normal of variance
        1 / fan-in), "torch" (the default of torch.nn.Linear) or "normal_0.02" (a standard deviation
        of 0.02). Biases start at 0, with "torch" uniform like the weights.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: dtype of dense layers and hidden activations; parameters are float32. A last layer
        without normalisation computes in float32 or wider.
    """

    widths: tuple[int, ...]
    hidden_norm: bool = True
    last_norm: str = ""
    last_bias: bool = True
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dense_init: str = "lecun_normal"
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features [n, f] -> outputs [n, widths[-1]] float32.

        Raises:
          ValueError: if the initialisation is unknown.
        """
        if self.dense_init not in DENSE_INITS:
            choices = ", ".join(DENSE_INITS)
            raise ValueError(f"dense_init must be one of {choices}; got {self.dense_init!r}")
        last = len(self.widths) - 1
        # Losses compute in float32; rounding their input to bfloat16 first would cost accuracy.
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        features = x.shape[-1]
        for i, width in enumerate(self.widths):
            norm = bool(self.last_norm) if i == last else self.hidden_norm
            affine = i < last or self.last_norm == "affine"
            dtype = wide_dtype if i == last else self.dtype
            x = nn.Dense(
                width or features,
                use_bias=not norm and (i < last or self.last_bias),
                kernel_init=DENSE_INITS[self.dense_init],
                bias_init=self._bias_init(x.shape[-1]),
                dtype=self.dtype if norm else dtype,
                name=f"dense{i}",
            )(x)
            if norm:
                x = BatchNorm(
                    group=self.bn_group,
                    views=self.bn_views,
                    use_scale=affine,
                    use_bias=affine,
                    dtype=dtype,
                    name=f"bn{i}",
                )(x, train)
            x = x.astype(dtype) if i == last else self.activation(x)
        return x

    def _bias_init(self, fan_in: int) -> nn.initializers.Initializer:
        if self.dense_init != "torch":
            return nn.initializers.zeros
        bound = fan_in**-0.5
        return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class DropoutMLP(nn.Module):
    """Dense layers with leaky ReLU and dropout between them, without normalisation.

    Rows do not affect each other.

    Attributes:
      widths: width of each layer, the output's last.
      rate: probability that training sets a hidden activation to 0.
    """

    widths: tuple[int, ...]
    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Inputs [..., f] -> outputs [..., widths[-1]] in training; `key` draws the dropout."""
        *hidden, last = self.widths
        for i, width in enumerate(hidden):
            x = nn.leaky_relu(nn.Dense(width, name=f"dense{i}")(x), 0.2)
            mask_key = jax.random.fold_in(key, i)
            x = nn.Dropout(self.rate, deterministic=False)(x, rng=mask_key)
        return nn.Dense(last, name=f"dense{len(hidden)}")(x)
