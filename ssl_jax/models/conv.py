"""Convolution whose gradients XLA's CPU backend runs inside loops as fast as outside."""

from functools import partial
from typing import Any

import jax
from jax import lax

Pads = tuple[tuple[int, int], ...]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` for `flax.linen.Conv`: two axes, no dilation, no groups.

    XLA's CPU backend calls its fast kernels for NHWC, HWIO -> NHWC alone, and brings other
    layouts into this one only outside of loops (jax issue 12868): as autodiff states them, the
    gradients of a convolution take 20 to 60 times as long in a loop over micro-batches. On a CPU
    they are stated in this layout; elsewhere, and wherever a mesh has axes that are not Auto
    (inside `jax.shard_map`), they are autodiff's. Without forward-mode derivatives.

    Args:
      x: [n, h, w, c].
      kernel: [kh, kw, c, d].
      padding: "SAME", "VALID" or ((low, high), (low, high)).
      options: what Flax passes beside: precision, and the defaults of all else.

    Returns:
      [n, h', w', d].

    Raises:
      ValueError: dilation or groups.
    """
    dilations = (*options.get("lhs_dilation", ()), *options.get("rhs_dilation", ()))
    if any(d != 1 for d in dilations) or options.get("feature_group_count", 1) != 1:
        raise ValueError("this convolution takes neither dilation nor groups")
    mesh = jax.sharding.get_abstract_mesh()
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    # Autodiff knows what a gradient must be summed over there.
    by_hand = mesh.empty or mesh.are_all_axes_auto
    return (_conv if by_hand else _plain)(x, kernel, tuple(strides), pads, options.get("precision"))


def _plain(x, kernel, strides, pads, precision, **dilation):
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=precision, **dilation
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, precision: Any):
    return _plain(x, kernel, strides, pads, precision)


def _forward(x, kernel, strides, pads, precision):
    return _plain(x, kernel, strides, pads, precision), (x, kernel)


def _backward(strides, pads, precision, residuals, g):
    def autodiff(x, kernel, g):
        return jax.vjp(lambda x, k: _plain(x, k, strides, pads, precision), x, kernel)[1](g)

    def restated(x, kernel, g):
        return (
            _by_input(x, kernel, g, strides, pads, precision),
            _by_kernel(x, kernel, g, strides, pads, precision),
        )

    return lax.platform_dependent(*residuals, g, cpu=restated, default=autodiff)


_conv.defvjp(_forward, _backward)


def _by_input(x, kernel, g, strides, pads, precision):
    """g, spread out by the strides, under the kernel turned round and its channels exchanged."""
    around = [
        (k - 1 - low, n + low - (m - 1) * s - 1)
        for n, k, m, s, (low, _) in _axes(x, kernel, g, strides, pads)
    ]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return _plain(g, turned, (1, 1), around, precision, lhs_dilation=strides)


def _by_kernel(x, kernel, g, strides, pads, precision):
    """x under g as the kernel, spread out by the strides: rows of the batch are its channels."""
    around = [
        (low, k + (m - 1) * s - n - low)
        for n, k, m, s, (low, _) in _axes(x, kernel, g, strides, pads)
    ]
    found = _plain(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (1, 1),
        around,
        precision,
        rhs_dilation=strides,
    )
    return found.transpose(1, 2, 0, 3)


def _axes(x, kernel, g, strides, pads):
    """(input size, kernel size, output size, stride, padding) of both axes."""
    return zip(x.shape[1:3], kernel.shape[:2], g.shape[1:3], strides, pads, strict=True)
