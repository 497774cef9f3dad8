"""Exports backbones to the formats of other tools, and checks each export by reading it back.

Importing this package imports neither JAX nor the other tools.
"""

FORMATS = (
    *("timm", "torchvision", "torch", "npz"),  # weights
    *("stablehlo", "savedmodel", "onnx"),  # programs with their weights
    "orbax",
)
WORDS = "word2vec"  # format of word vectors, the only one for methods that embed words
