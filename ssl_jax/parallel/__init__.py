"""Devices and processes: the mesh, how arrays lie on it, and how several processes become one job.

The only owner of the axis names: everywhere else the program is written over the global batch, and
how many devices or hosts hold it never changes what is computed.
"""

from ssl_jax.parallel.mesh import (
    DATA,
    FSDP,
    ROWS,
    check_batch,
    compiler_options,
    constrained,
    gathered,
    make_mesh,
    replicated,
    rows,
    shardings,
    to_global,
    use_cores,
)
from ssl_jax.parallel.processes import check_shared, leave, on_first, show, start

__all__ = [
    "DATA",
    "FSDP",
    "ROWS",
    "check_batch",
    "check_shared",
    "compiler_options",
    "constrained",
    "gathered",
    "leave",
    "make_mesh",
    "on_first",
    "replicated",
    "rows",
    "shardings",
    "show",
    "start",
    "to_global",
    "use_cores",
]
