"""ResNets: shapes, names, published sizes, initial values; variants against torch."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models.resnet import BasicBlock, Bottleneck, ResNet

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def _abstract(module, images=IMAGES):
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, True), images)


def _size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _randomised(module, images):
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        return (
            rng.normal(size=leaf.shape)
            if name in ("mean", "bias")
            else rng.uniform(0.5, 1.5, leaf.shape)
        )

    tree = jax.tree_util.tree_map_with_path(draw, _abstract(module, images))
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


# torchvision's totals minus the classifier (resnet200: timm's). resnet10 is computed from
# ResNet-18.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 11_689_512 - 513_000),
        ("resnet34", 21_797_672 - 513_000),
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet101", 44_549_160 - 2_049_000),
        ("resnet152", 60_192_808 - 2_049_000),
        ("resnet200", 64_673_832 - 2_049_000),
        (
            "resnet10",
            11_176_512 - 2 * 9 * (64**2 + 128**2 + 256**2 + 512**2) - 4 * (64 + 128 + 256 + 512),
        ),
    ],
)
def test_parameter_count(name, size):
    assert _size(_abstract(models.get(name))["params"]) == size


# SimCLR v2 (arXiv 2006.10029), table 1, in millions, including running statistics.
@pytest.mark.parametrize(
    ("depth", "width", "sk", "millions"),
    [
        (50, 1, False, 24),
        (50, 1, True, 35),
        (50, 2, False, 94),
        (50, 2, True, 140),
        (101, 2, True, 257),
        (152, 3, True, 795),
    ],
)
def test_sizes_match_simclr_v2_s_table(depth, width, sk, millions):
    module = models.get(f"resnet{depth}", width=width, sk_ratio=0.0625 * sk)
    assert round(_size(_abstract(module)) / 1e6) == millions


@pytest.mark.parametrize(
    ("name", "options", "features"),
    [
        ("resnet10", {"width": 0.25, "stem": "cifar"}, 128),
        ("resnet18", {}, 512),
        ("resnet50", {"width": 1.5}, 3072),
        ("resnet50", {"sk_ratio": 0.0625, "stem": "cifar"}, 2048),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_features_are_float32_for_every_variant(name, options, features, dtype):
    module = models.get(name, dtype=dtype, **options)
    variables = _abstract(module)
    out = jax.eval_shape(lambda v, x: module.apply(v, x, False), variables, IMAGES)
    assert (out.shape, out.dtype) == ((2, features), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_parameter_names_match_torchvision():
    params = _abstract(models.get("resnet50"))["params"]
    assert {"conv1", "bn1", "layer1_0", "layer3_5", "layer4_2"} < set(params)
    assert len(params) == 2 + 16
    inner = {f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)}
    assert set(params["layer2_1"]) == inner
    assert set(params["layer2_0"]) == inner | {"downsample_conv", "downsample_bn"}
    # With equal channels and stride 1 the shortcut is the identity; SimCLR's code would project.
    assert "downsample_conv" not in _abstract(models.get("resnet18"))["params"]["layer1_0"]


@pytest.mark.parametrize("zero_gamma", [True, False])
def test_initial_values(zero_gamma):
    module = ResNet(BasicBlock, (1,), width=0.25, stem="cifar", zero_gamma=zero_gamma)
    params = module.init(jax.random.key(0), jnp.ones((2, 8, 8, 3)), True)["params"]
    assert np.all(np.asarray(params["layer1_0"]["bn2"]["scale"]) == (0 if zero_gamma else 1))
    assert np.all(np.asarray(params["layer1_0"]["bn1"]["scale"]) == 1)
    # 432 draws with variance 2 / (9 * 16 outputs). By fan-in it would be 2 / (9 * 3).
    np.testing.assert_allclose(np.std(params["conv1"]["kernel"]), np.sqrt(2 / 144), rtol=0.15)


def test_bfloat16_stays_close_to_float32():
    x = np.random.default_rng(3).uniform(size=(8, 8, 8, 3)).astype(np.float32)
    modules = [
        ResNet(BasicBlock, (1, 1), width=0.25, stem="cifar", dtype=dtype)
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    variables = _randomised(modules[0], x)
    want, got = (
        jax.jit(lambda v, m=m: m.apply(v, x, True, mutable=["batch_stats"])[0])(variables)
        for m in modules
    )
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-4 < error < 3e-2  # the lower bound shows that not everything is float32


def test_unknown_names_and_options_raise():
    with pytest.raises(ValueError, match=r"resnet51.*resnet10, resnet18, resnet34, resnet50"):
        models.get("resnet51")
    with pytest.raises(TypeError, match="widht"):
        models.get("resnet18", widht=2)
    for options in ({"stem": "tiny"}, {"width": 0.001}, {"sk_ratio": 0.0625}):
        with pytest.raises(ValueError, match=r"stem|width|sk_ratio"):
            _abstract(models.get("resnet18", **options))


def test_importing_names_does_not_import_jax():
    code = "import sys, ssl_jax.models as m; m.names(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Variants that timm does not have, written as torch functions of our parameters.


def _conv(torch, x, p, stride=1):
    weight = torch.from_numpy(np.asarray(p["kernel"]).transpose(3, 2, 0, 1).copy())
    return torch.nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def _norm(torch, x, p, s):
    tensors = (torch.from_numpy(np.array(v)) for v in (s["mean"], s["var"], p["scale"], p["bias"]))
    return torch.nn.functional.batch_norm(x, *tensors, eps=1e-5)


def _sk(torch, x, p, s, stride):
    x = torch.relu(_norm(torch, _conv(torch, x, p["conv"], stride), p["bn"], s["bn"]))
    first, second = x.chunk(2, dim=1)
    gate = _conv(torch, (first + second).mean((2, 3), keepdim=True), p["reduce"])
    gate = torch.relu(_norm(torch, gate, p["reduce_bn"], s["reduce_bn"]))
    a, b = _conv(torch, gate, p["expand"]).chunk(2, dim=1)
    weight = torch.sigmoid(a - b)  # the softmax over two values
    return weight * first + (1 - weight) * second


def _average(torch, x, stride):
    """ResNet-D's 2x2 average with SimCLR's padding."""
    functional = torch.nn.functional
    total = functional.avg_pool2d(functional.pad(x, (0, 1, 0, 1)), 2, stride)
    if stride == 2:
        return total
    return total / functional.avg_pool2d(functional.pad(torch.ones_like(x), (0, 1, 0, 1)), 2, 1)


def _block(torch, x, p, s, stride):
    last = 3 if "conv3" in p else 2
    y, short = x, x
    for i in range(1, last + 1):
        step = stride if i == last - 1 else 1
        if "conv" in p[f"conv{i}"]:
            y = _sk(torch, y, p["conv2"], s["conv2"], stride)
            short = _average(torch, x, stride) if "downsample_conv" in p else x
            continue
        y = _conv(torch, y, p[f"conv{i}"], step)
        y = _norm(torch, y, p[f"bn{i}"], s[f"bn{i}"])
        y = torch.relu(y) if i < last else y
    if "downsample_conv" in p:
        step = 1 if short is not x else stride
        short = _conv(torch, short, p["downsample_conv"], step)
        short = _norm(torch, short, p["downsample_bn"], s["downsample_bn"])
    return torch.relu(y + short)


def _forward(torch, variables, images, stem):
    p, s = variables["params"], variables["batch_stats"]
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    if "conv1" in p:
        x = _conv(torch, x, p["conv1"], 1 if stem == "cifar" else 2)
    else:
        for i, stride in enumerate((2, 1)):
            x = _conv(torch, x, p[f"conv1_{i}"], stride)
            x = torch.relu(_norm(torch, x, p[f"bn1_{i}"], s[f"bn1_{i}"]))
        x = _conv(torch, x, p["conv1_2"])
    x = torch.relu(_norm(torch, x, p["bn1"], s["bn1"]))
    if stem == "imagenet":
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    blocks = sorted(k for k in p if k.startswith("layer"))
    for name in blocks:
        x = _block(torch, x, p[name], s[name], 2 if name[5] > "1" and name.endswith("_0") else 1)
    return x.mean((2, 3)).numpy()


# SK gets odd sides (72 gives odd sides from stage 3 on) and gate widths above and at the minimum.
@pytest.mark.parametrize(
    ("block", "options", "size"),
    [
        (BasicBlock, {"width": 0.25, "stem": "cifar"}, 33),
        (Bottleneck, {"width": 1.5, "stem": "cifar"}, 17),
        (Bottleneck, {"width": 0.5, "sk_ratio": 0.5}, 72),
    ],
)
def test_variants_equal_torch(block, options, size):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(1).uniform(size=(2, size, size, 3)).astype(np.float32)
    module = ResNet(block, (2, 1, 1, 1), **options)
    variables = _randomised(module, images)
    want = _forward(torch, variables, images, module.stem)
    got = jax.jit(module.apply, static_argnums=2)(variables, images, False)
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"{block.__name__} {options}: {error:.1e}")
    assert error < 1e-5
