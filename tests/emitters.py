"""Flags for XLA's two ways from HLO to LLVM on a CPU.

Tests use the old way. It takes half the time of the way used in runs, which goes through MLIR, and
the tests spend most of their time compiling small programs.
"""

import importlib.metadata

# XLA aborts on unknown flags, and plans to remove this flag together with the old way.
_KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
FLAG = "--xla_cpu_use_fusion_emitters=false" if _KNOWN else ""
# Compiler options for tests whose results depend on the rounding of the way used in runs.
AS_IN_A_RUN = {"xla_cpu_use_fusion_emitters": True} if _KNOWN else None
