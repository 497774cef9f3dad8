"""Evaluation of frozen features, the only part of the package that reads labels.

`evaluation` runs the protocols, one module each in `protocols`, on a subject (`subjects`): an
encoder with its weights. The numerics (`knn`, `linear`, `few_shot`, ...) take plain arrays.
"""
