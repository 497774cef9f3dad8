"""Features with a class structure, for tests of protocols."""

import numpy as np


# Same shape as in test_linear.py, so that the solver is compiled only once.
def feature_set(n: int = 200, noise: float = 2.0, seed: int = 0):
    """Returns (train features, train labels, test features, test labels) of 4 classes."""
    rng = np.random.default_rng(seed)
    y = (np.arange(2 * n) % 4).astype(np.int32)
    x = (np.eye(4, 20)[y] * 3 + noise * rng.normal(size=(2 * n, 20))).astype(np.float32)
    return x[:n], y[:n], x[n:], y[n:]
