"""Heads between the encoder's features and the loss."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.norm import BatchNorm

Tree = Any


class ProjectionHead(nn.Module):
    """SimCLR's projection head: dense layers, each followed by batch normalisation.

    No dense layer has a bias (normalisation would cancel it). All layers but the last end in ReLU;
    the last has neither ReLU nor, in its normalisation, a bias. Weights start as N(0, 0.01²).

    Attributes:
      depth: dense layers: 0 = the identity, 1 = linear, 2 in SimCLR, 3 in SimCLR v2.
      hidden_dim: width of the layers before the last; None = the input's (2048 after ResNet-50),
        as in SimCLR's code.
      output_dim: width of the last layer.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: of the dense layers and hidden activations; parameters are float32.
      upto: how many layers run, with the parameters that they have in the whole head; None = all.

    Source: SimCLR (arXiv 2002.05709), section 4.2; biases, normalisation and initialisation from
    google-research/simclr tf2/model.py (LinearLayer, ProjectionHead), which the paper leaves open.
    """

    depth: int = 2
    hidden_dim: int | None = None
    output_dim: int = 128
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32
    upto: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features [n, f] to projections [n, output_dim] float32 (depth 0: x itself).

        Raises:
          ValueError: depth below 0.
        """
        if self.depth < 0:
            raise ValueError(f"projection head of depth {self.depth}: 0 (identity) or more layers")
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
            # The loss normalises in float32: rounding z to bfloat16 first would cost accuracy.
            x = BatchNorm(
                group=self.bn_group,
                views=self.bn_views,
                use_bias=not last,
                dtype=jnp.promote_types(self.dtype, jnp.float32) if last else self.dtype,
                name=f"bn{i}",
            )(x, train)
            x = x if last else nn.relu(x)
        return x


def cut(params: Tree, upto: int, dtype: DTypeLike = jnp.float32) -> ProjectionHead | None:
    """The projection head, whole or cut, that has these parameters, run up to a layer.

    None if it is another kind of head or has fewer layers.
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
    # Only the last layer's normalisation has no bias; with one, layers behind it were cut off.
    depth = count + ("bias" in last)
    output = params[f"dense{count - 1}"]["kernel"].shape[1]
    return ProjectionHead(depth, width, output, dtype=dtype, upto=upto)


class Classifier(nn.Module):
    """Linear classifier: features [n, f] to logits [n, classes], float32 at least; starts as 0."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros, dtype=wide, name="dense")(
            x
        )


class MLP(nn.Module):
    """Dense layers with activations between: projection and prediction heads of most methods.

    Attributes:
      widths: of the layers, the output's last; 0 = as wide as the input of the head.
      hidden_norm: batch normalisation before each activation.
      last_norm: after the last layer: "" for none, "affine" for batch normalisation, "plain" for
        one without scale and bias.
      activation: between layers.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: of the dense layers and hidden activations; parameters are float32.

    A layer has a bias where no normalisation would cancel it. Weights start with variance
    1 / fan-in (truncated normal).
    """

    widths: tuple[int, ...]
    hidden_norm: bool = True
    last_norm: str = ""
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Features [n, f] to [n, widths[-1]] float32."""
        last = len(self.widths) - 1
        # Losses compute in float32: rounding the outputs to bfloat16 first would cost accuracy.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        features = x.shape[-1]
        for i, width in enumerate(self.widths):
            norm = bool(self.last_norm) if i == last else self.hidden_norm
            affine = i < last or self.last_norm == "affine"
            dtype = wide if i == last else self.dtype
            x = nn.Dense(width or features, use_bias=not norm, dtype=self.dtype, name=f"dense{i}")(
                x
            )
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


class DropoutMLP(nn.Module):
    """Dense layers with leaky ReLU and dropout between; no normalisation, rows are independent.

    Attributes:
      widths: of the layers, the output's last.
      rate: share of the hidden activations that training sets to 0.
    """

    widths: tuple[int, ...]
    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """[..., f] to [..., widths[-1]], in training; `key` draws what is dropped."""
        *hidden, last = self.widths
        for i, width in enumerate(hidden):
            x = nn.leaky_relu(nn.Dense(width, name=f"dense{i}")(x), 0.2)
            kept = jax.random.fold_in(key, i)
            x = nn.Dropout(self.rate, deterministic=False)(x, rng=kept)
        return nn.Dense(last, name=f"dense{len(hidden)}")(x)
