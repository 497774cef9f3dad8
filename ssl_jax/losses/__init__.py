"""Losses: pure functions of arrays, written for the global batch."""

from ssl_jax.losses.nt_xent import nt_xent

__all__ = ["nt_xent"]
