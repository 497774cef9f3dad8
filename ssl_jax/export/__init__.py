"""Backbones in the formats of other tools; nothing is written that was not read back and compared.

Importing this package imports neither JAX nor the other tools.
"""

FORMATS = (
    *("timm", "torchvision", "torch", "npz"),  # weights
    *("stablehlo", "savedmodel", "onnx"),  # programs with their weights
    "orbax",
)
