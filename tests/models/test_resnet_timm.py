"""ResNets equal timm's, whose names and weights are torchvision's, in evaluation and training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_jax import models

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
TOLERANCE = 1e-5  # relative to the largest output


def _torch_name(path):
    """Example: ("layer1_0", "downsample_bn", "mean") -> "layer1.0.downsample.1.running_mean"."""
    *modules, leaf = path
    name = ".".join(modules).replace("downsample_conv", "downsample.0")
    name = name.replace("downsample_bn", "downsample.1").replace("_", ".")
    return f"{name}.{LEAVES[leaf]}"


def _random_torch_model(timm, name):
    import torch

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.ndim == 1:  # replaces every default value of the norms
                low = -0.5 if key.endswith(("bias", "mean")) else 0.5
                value.uniform_(low, low + 1)
    return model


def _from_torch(state, shapes):
    flat = flatten_dict(shapes)
    arrays = {p: state[_torch_name(p[1:])].numpy().copy() for p in flat}
    arrays = {p: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for p, a in arrays.items()}
    assert all(arrays[p].shape == flat[p].shape for p in flat)
    assert len(arrays) == sum("num_batches_tracked" not in key for key in state)
    return unflatten_dict({p: jnp.asarray(a) for p, a in arrays.items()})


def _pair(timm, name, size):
    theirs, ours = _random_torch_model(timm, name), models.get(name)
    images = np.random.default_rng(0).normal(size=(8, size, size, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda x: ours.init(jax.random.key(0), x, False), images)
    return theirs, ours, _from_torch(theirs.state_dict(), shapes), images


def _run_torch(model, images):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def _relative(got, want):
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


# A size of 75 gives odd sides in every stage, where padding mistakes show.
@pytest.mark.parametrize(("name", "size"), [("resnet18", 75), ("resnet34", 64), ("resnet50", 75)])
def test_equals_timm_in_evaluation(timm, name, size):
    theirs, ours, variables, images = _pair(timm, name, size)
    want = _run_torch(theirs.eval(), images)
    got = jax.jit(ours.apply, static_argnums=2)(variables, images, False)
    error = _relative(got, want)
    print(f"{name} at {size}, evaluation: {error:.1e}")
    assert error < TOLERANCE


def test_equals_timm_in_training(timm):
    theirs, ours, variables, images = _pair(timm, "resnet18", 64)
    want = _run_torch(theirs.train(), images)
    step = jax.jit(lambda v, x: ours.apply(v, x, True, mutable=["batch_stats"]))
    got, updates = step(variables, images)
    error = _relative(got, want)
    print(f"resnet18 at 64, training: {error:.1e}")
    assert error < TOLERANCE
    shapes = {"params": variables["params"], **updates}
    want = flatten_dict(_from_torch(theirs.state_dict(), shapes)["batch_stats"])
    for path, new in flatten_dict(updates["batch_stats"]).items():
        if path[-1] == "mean":
            np.testing.assert_allclose(new, want[path], rtol=1e-5, atol=1e-5)
    old, new = (v["batch_stats"]["bn1"]["var"] for v in (variables, updates))
    count = 8 * 32 * 32  # torch keeps the unbiased variance
    biased = (want["bn1", "var"] - 0.9 * old) * (count - 1) / count + 0.9 * old
    np.testing.assert_allclose(new, biased, rtol=1e-5)
