"""Losses: pure functions of arrays that compute over the global batch on any number of devices."""

from ssl_jax.losses.adversarial import discriminate, fool
from ssl_jax.losses.clustering import dino, dino_center, sinkhorn, swav
from ssl_jax.losses.contrastive import debiased, decoupled, hard_negatives, nt_xent
from ssl_jax.losses.distillation import distillation
from ssl_jax.losses.info_nce import info_nce, paired_info_nce
from ssl_jax.losses.metric import margin_contrastive, symmetric_triplet, triplet
from ssl_jax.losses.predictive import predictive_info_nce
from ssl_jax.losses.redundancy import barlow_twins, vicreg
from ssl_jax.losses.regression import byol, simsiam
from ssl_jax.losses.same_pair import same_pair
from ssl_jax.losses.sigmoid import siglip
from ssl_jax.losses.supervised import supervised_contrastive

__all__ = [
    "barlow_twins",
    "byol",
    "debiased",
    "decoupled",
    "dino",
    "dino_center",
    "discriminate",
    "distillation",
    "fool",
    "hard_negatives",
    "info_nce",
    "margin_contrastive",
    "nt_xent",
    "paired_info_nce",
    "predictive_info_nce",
    "same_pair",
    "siglip",
    "simsiam",
    "sinkhorn",
    "supervised_contrastive",
    "swav",
    "symmetric_triplet",
    "triplet",
    "vicreg",
]
