"""Convolution whose gradients are as fast inside loops as outside on XLA's CPU backend."""

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

    XLA's CPU backend has fast kernels only for the layout NHWC, HWIO -> NHWC. It converts other
    layouts only outside of loops (jax issue 12868). The gradients of a convolution as autodiff
    states them therefore take 20 to 60 times as long in a loop over micro-batches. On a CPU, this
    function states them in the fast layout. On other backends, and wherever a mesh has axes that
    are not Auto (inside `jax.shard_map`), it uses autodiff. Forward-mode derivatives are not
    supported.

    Args:
      x: [n, h, w, c].
      kernel: [kh, kw, c, d].
      strides: (down, across).
      padding: "SAME", "VALID" or ((low, high), (low, high)).
      **options: further arguments that Flax passes: precision, and defaults of all others.

    Returns:
      [n, h', w', d].

    Raises:
      ValueError: if dilation or groups are requested.
    """
    dilations = (*options.get("lhs_dilation", ()), *options.get("rhs_dilation", ()))
    if any(d != 1 for d in dilations) or options.get("feature_group_count", 1) != 1:
        raise ValueError("this convolution supports neither dilation nor groups")
    mesh = jax.sharding.get_abstract_mesh()
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    # With other axis types, only autodiff knows over which axes to sum a gradient.
    use_fast_layout = mesh.empty or mesh.are_all_axes_auto
    return (_conv if use_fast_layout else _plain)(
        x, kernel, tuple(strides), pads, options.get("precision")
    )


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

    def fast_layout(x, kernel, g):
        return (
            _input_gradient(x, kernel, g, strides, pads, precision),
            _kernel_gradient(x, kernel, g, strides, pads, precision),
        )

    return lax.platform_dependent(*residuals, g, cpu=fast_layout, default=autodiff)


_conv.defvjp(_forward, _backward)


def _input_gradient(x, kernel, g, strides, pads, precision):
    """Convolves g, dilated by the strides, with the flipped kernel whose channels are exchanged."""
    gradient_pads = [
        (k - 1 - low, n + low - (m - 1) * s - 1)
        for n, k, m, s, (low, _) in _axes(x, kernel, g, strides, pads)
    ]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return _plain(g, flipped, (1, 1), gradient_pads, precision, lhs_dilation=strides)


def _kernel_gradient(x, kernel, g, strides, pads, precision):
    """Convolves x with the dilated g as kernel; batch and channels exchange their roles."""
    gradient_pads = [
        (low, k + (m - 1) * s - n - low)
        for n, k, m, s, (low, _) in _axes(x, kernel, g, strides, pads)
    ]
    gradient = _plain(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (1, 1),
        gradient_pads,
        precision,
        rhs_dilation=strides,
    )
    return gradient.transpose(1, 2, 0, 3)


def _axes(x, kernel, g, strides, pads):
    """Yields (input size, kernel size, output size, stride, padding) of both spatial axes."""
    return zip(x.shape[1:3], kernel.shape[:2], g.shape[1:3], strides, pads, strict=True)
