"""Shared part of the methods with local crops: forwards views of every size through one network."""

from typing import Any

import jax

from ssl_jax.methods import Batch, Run
from ssl_jax.models.chain import Chain

Tree = Any


def full_and_local(run: Run) -> tuple[int, int]:
    """Counts the views of every image.

    Returns:
      (number of full-size views, number of local crops).

    Raises:
      ValueError: if there are fewer than two full-size views.
    """
    full = run.seen["views"].shape[0]
    local = run.seen["local_views"].shape[0] if "local_views" in run.seen else 0
    if full < 2:
        raise ValueError(f"this method takes 2 full-size views or more, got {full}")
    return full, local


def forward(
    networks: Chain, params: Tree, stats: Tree, batch: Batch
) -> tuple[dict[str, dict[str, jax.Array]], Tree]:
    """Training forward of the full-size views, then of the local crops, if any.

    Views of one size share a forward. Each forward updates the running statistics.

    Returns:
      (outputs, new batch_stats). Outputs are {"views": ..., "local_views": ...}, the latter only
      with local crops, each a dict by module name.
    """
    outputs: dict[str, dict[str, jax.Array]] = {}
    for name in ("views", "local_views"):
        if name in batch:
            outputs[name], stats = networks(params, stats, batch[name])
    return outputs, stats
