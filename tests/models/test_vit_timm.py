"""Vision Transformers equal timm's, with our sine-cosine positions copied into its `pos_embed`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_jax import models
from ssl_jax.models.vit import ViT, positions

TOLERANCE = 1e-5  # relative to the largest output
POOLS = {"token": "token", "mean": "avg"}  # ours: timm's
SMALL = {"patch_size": 4, "width": 64, "depth": 3, "heads": 4}
# The small image is not square, so that exchanged rows and columns of patches would show.
CASES = {"tiny": (models.get("vit_tiny"), (224, 224)), "small": (ViT(**SMALL), (32, 20))}


def _random_torch_model(timm, ours, size):
    import torch

    torch.manual_seed(0)
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=size,
        patch_size=ours.patch_size,
        embed_dim=ours.width,
        depth=ours.depth,
        num_heads=ours.heads,
        num_classes=0,
        global_pool=POOLS[ours.pool],
        fc_norm=False,
    ).eval()
    rows, columns = (side // ours.patch_size for side in size)
    table = np.vstack([np.zeros(ours.width), positions(rows, columns, ours.width)])
    with torch.no_grad():
        for key, value in theirs.state_dict().items():
            if key == "pos_embed":
                value.copy_(torch.from_numpy(table)[None])
            elif key == "cls_token":  # so small that the epsilon of the first norm matters
                value.normal_(0, 1e-3)
            elif value.ndim == 1:  # replaces every default value of norms and biases
                low = 0.5 if "norm" in key and key.endswith("weight") else -0.5
                value.uniform_(low, low + 1)
            else:
                value.normal_(0, 1.5 / np.sqrt(np.prod(value.shape[1:])))
    return theirs


def _to_ours(state):
    """Converts timm's state to our parameters."""
    flat = {}
    for key, value in state.items():
        if key == "pos_embed":
            continue
        *module, leaf = key.replace("blocks.", "blocks_").replace("embed.proj", "embed").split(".")
        array = value.numpy().squeeze() if key == "cls_token" else value.numpy()
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        if module[-1:] == ["qkv"]:
            parts = zip("qkv", np.split(array, 3, axis=-1), strict=True)
            flat |= {(*module[:-1], name, leaf): part for name, part in parts}
        else:
            flat[(*module, leaf)] = array
    return unflatten_dict({path: jnp.asarray(np.array(a)) for path, a in flat.items()})


def _pair(timm, case, pool):
    ours, size = CASES[case]
    ours = ours.clone(pool=pool)
    theirs = _random_torch_model(timm, ours, size)
    images = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    variables = {"params": _to_ours(theirs.state_dict())}
    shapes = jax.eval_shape(lambda x: ours.init(jax.random.key(0), x, False), images)
    want, got = (
        {path: leaf.shape for path, leaf in flatten_dict(tree).items()}
        for tree in (shapes, variables)
    )
    assert got == want
    return theirs, ours, variables, images


def _nchw(images):
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def _assert_close(got, want, label):
    error = np.abs(np.asarray(got) - want).max() / np.abs(want).max()
    print(f"{label}: {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("case", CASES)
def test_features_equal_timm(timm, case, pool):
    import torch

    theirs, ours, variables, images = _pair(timm, case, pool)
    with torch.no_grad():
        want = theirs(_nchw(images)).numpy()
    got = jax.jit(ours.apply, static_argnums=2)(variables, images, False)
    _assert_close(got, want, f"{case}, {pool}")


def test_tokens_of_selected_patches_equal_timm(timm):
    import torch

    theirs, ours, variables, images = _pair(timm, "small", "token")
    rng = np.random.default_rng(1)
    keep = np.stack([rng.permutation(40)[:10] for _ in images]).astype(np.int32)
    with torch.no_grad():
        tokens = theirs._pos_embed(theirs.patch_embed(_nchw(images)))
        selected = [t[np.concatenate([[0], 1 + k])] for t, k in zip(tokens, keep, strict=True)]
        want = theirs.norm(theirs.blocks(torch.stack(selected))).numpy()
    got = jax.jit(lambda v, x, k: ours.apply(v, x, False, k, method="tokens"))(
        variables, images, keep
    )
    _assert_close(got, want, "tokens")
