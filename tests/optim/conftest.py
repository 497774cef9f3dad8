"""Parameters and gradients that the tests of optimizers share."""

import numpy as np
import pytest


@pytest.fixture
def problem():
    """Parameters and the gradients of ten steps. The kernel `zero` has norm 0."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,), "scale": (4,), "zero": (2, 2), "conv": (3, 3, 2, 2)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    params["zero"] *= 0
    grads = [{n: rng.normal(size=s) for n, s in shapes.items()} for _ in range(10)]
    return params, grads


@pytest.fixture
def model(problem):
    """Three modules, each with the parameters of `problem`, and gradients that differ in scale."""
    params, grads = problem
    names = ("kernel", "bias", "conv")
    params, *grads = [{name: tree[name] for name in names} for tree in (params, *grads)]
    modules = {"encoder": 1.0, "predictor": 0.5, "discriminator": -2.0}
    return (
        {name: {"deep": params} for name in modules},
        [
            {n: {"deep": {k: s * v for k, v in g.items()}} for n, s in modules.items()}
            for g in grads
        ],
    )
