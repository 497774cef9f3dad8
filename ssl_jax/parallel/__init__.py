"""The device mesh and the sharding of arrays over it.

Only this package knows the names of the mesh axes. All other code is written for the global batch:
the number of devices or hosts never changes what is computed.
"""

from ssl_jax.parallel.mesh import (
    DATA,
    FSDP,
    ROWS,
    check_batch,
    compiler_options,
    constrain,
    make_mesh,
    replicate_parameters,
    replicated,
    rows,
    shardings,
    to_global,
    use_cpu_cores_as_devices,
    whole,
)

__all__ = [
    "DATA",
    "FSDP",
    "ROWS",
    "check_batch",
    "compiler_options",
    "constrain",
    "make_mesh",
    "replicate_parameters",
    "replicated",
    "rows",
    "shardings",
    "to_global",
    "use_cpu_cores_as_devices",
    "whole",
]
