"""Losses: pure functions of arrays, written for the global batch, on any number of devices."""

from ssl_jax.losses.contrastive import debiased, decoupled, hard_negatives, nt_xent
from ssl_jax.losses.info_nce import info_nce, paired_info_nce
from ssl_jax.losses.supervised import supervised_contrastive

__all__ = [
    "debiased",
    "decoupled",
    "hard_negatives",
    "info_nce",
    "nt_xent",
    "paired_info_nce",
    "supervised_contrastive",
]
