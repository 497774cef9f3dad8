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

__all__ = [
    "DATA",
    "FSDP",
    "ROWS",
    "check_batch",
    "compiler_options",
    "constrained",
    "gathered",
    "make_mesh",
    "replicated",
    "rows",
    "shardings",
    "to_global",
    "use_cores",
]
