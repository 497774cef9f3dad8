"""XLA's two ways from HLO to LLVM on a CPU. In the tests programs go the old one: it takes half the
time of a run's, by way of MLIR, and compiling small programs is most of what the tests do."""

import importlib.metadata

# XLA dies of a flag that it does not know, and means to drop this one with the old way.
_KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
FLAG = "--xla_cpu_use_fusion_emitters=false" if _KNOWN else ""
# Compiler options for tests of what the two ways round differently.
AS_IN_A_RUN = {"xla_cpu_use_fusion_emitters": True} if _KNOWN else None
