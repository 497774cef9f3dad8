"""What the methods with local crops share: views of every size through one network."""

from typing import Any

import jax

from ssl_jax.methods import Batch, Run
from ssl_jax.models.chain import Chain

Tree = Any


def full_and_local(run: Run) -> tuple[int, int]:
    """(full-size views, local crops) of every image; ValueError with fewer than two views."""
    full = run.seen["views"].shape[0]
    local = run.seen["local_views"].shape[0] if "local_views" in run.seen else 0
    if full < 2:
        raise ValueError(f"this method takes 2 full-size views or more, got {full}")
    return full, local


def forward(
    networks: Chain, params: Tree, stats: Tree, batch: Batch
) -> tuple[dict[str, dict[str, jax.Array]], Tree]:
    """({"views": outputs, and with local crops "local_views": outputs}, the new batch_stats).

    Views of one size pass together, full-size first; each pass moves the running statistics.
    """
    found: dict[str, dict[str, jax.Array]] = {}
    for name in ("views", "local_views"):
        if name in batch:
            found[name], stats = networks(params, stats, batch[name])
    return found, stats
