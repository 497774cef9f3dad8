"""Evaluations of frozen features. They receive functions and arrays, and alone read labels.

Importing this package imports no JAX, so that a command can check a word at once.
"""

PROTOCOLS = ("knn", "linear", "label_free", "few_shot", "layers", "linear_sgd")
UNLABELLED = ("label_free",)  # those that read no label
