"""Optimizers (LARS, SGD, AdamW), learning-rate schedules, and masks over parameters."""

from ssl_jax.optim.optimizers import make

__all__ = ["make"]
