"""Tests that encoding weights into a layout and decoding them again is exact for every model."""

import jax
import numpy as np
import pytest
from random_weights import assert_same, make

from ssl_jax import models
from ssl_jax import weights as weights_package
from ssl_jax.errors import Fault
from ssl_jax.models.heads import MLP, ProjectionHead
from ssl_jax.weights import layouts, native, npz_vit, simclr, torch_resnet, torch_vit

STANDARD = {"mean": (0.25, 0.5, 0.75), "std": (0.5, 0.25, 0.125)}
RESNETS = [
    ("resnet8", {"width": 0.25, "stem": "cifar"}),
    ("resnet10", {"width": 0.25}),
    ("resnet18", {"width": 0.125, "padding": "simclr"}),
    ("resnet34", {"width": 0.125, "padding": "same", **STANDARD}),
    ("resnet50", {"width": 0.25}),
    ("resnet50", {"width": 1.25, "sk_ratio": 0.0625, "padding": "simclr"}),
    ("resnet50", {"width": 0.5, "sk_ratio": 0.5, "stem": "cifar"}),
    ("resnet101", {"width": 0.125, "sk_ratio": 0.0625}),
    ("resnet152", {"width": 0.125, "stem": "cifar"}),
    ("resnet200", {"width": 0.0625}),
]
VITS = [
    ("vit_micro", {"patch_size": 4, "mlp_ratio": 2}, 32),
    ("vit_micro", {"positions": "learned", "pool": "mean", **STANDARD}, 48),
    ("vit_tiny", {"positions": "learned"}, 64),
    ("vit_small_moco", {"patch_size": 32}, 64),
]
LAB = {"colors": "lab", "first": (0,), "second": (1, 2)}
CONVERTING = [
    ("split_resnet10", {"width": 0.25, **LAB}),
    ("split_resnet50", {"width": 0.25, "first": (2, 0), "second": (1,), **STANDARD}),
    ("resnet10", {"width": 0.25, "colors": "lightness"}),
]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in RESNETS]


def hints(model, names):
    """Returns the arguments of the model that shapes do not determine."""
    return {name: model[name] for name in names if name in model}


def assert_decodes_to(arrays, given, expected):
    assert_same(layouts.decode(arrays, **given), expected)
    assert all(a.flags.c_contiguous for a in arrays.values())


@pytest.mark.parametrize(("name", "options"), RESNETS, ids=IDS)
def test_resnets_in_torch_and_native_layouts(name, options):
    weights = make(name, classes=3, **options)
    arrays = torch_resnet.encode(weights)
    assert_decodes_to(arrays, hints(options, ("padding", "mean", "std")), weights)
    given = {"model": weights.model}
    assert_same(torch_resnet.decode(arrays, **given), weights)
    counters = {n: a for n, a in arrays.items() if n.endswith("num_batches_tracked")}
    assert {(a.dtype, a.shape) for a in counters.values()} == {(np.dtype(np.int64), ())}
    assert len(counters) == sum(n.endswith("running_var") for n in arrays)
    assert_same(layouts.decode(native.encode(weights)), weights)


@pytest.mark.parametrize(("name", "options"), RESNETS, ids=IDS)
def test_resnets_in_simclr_layout(name, options):
    options = {**options, "padding": "simclr"}
    weights = make(name, classes=3, head=ProjectionHead(2, output_dim=8), **options)
    decoded = layouts.decode(simclr.encode(weights), **hints(options, ("mean", "std")))
    assert_same(decoded, weights)


@pytest.mark.parametrize(("name", "options", "size"), VITS)
def test_vits_in_torch_google_and_native_layouts(name, options, size):
    weights = make(name, size, classes=3, **options)
    given = hints(options, ("pool", "mean", "std")) | {"size": size}
    heads = models.VITS[name]["heads"]
    arrays = torch_vit.encode(weights, size)
    assert_decodes_to(arrays, given | {"heads": heads}, weights)
    assert_same(torch_vit.decode(arrays, model=weights.model), weights)
    given = {"mean": (0.0,) * 3, "std": (1.0,) * 3} | given
    assert_decodes_to(npz_vit.encode(weights, size), given, weights)
    assert_same(layouts.decode(native.encode(weights)), weights)


@pytest.mark.parametrize(("name", "options"), CONVERTING, ids=str)
def test_networks_that_divide_or_convert_channels_in_native_layout(name, options):
    weights = make(name, classes=3, **options)
    assert_same(layouts.decode(native.encode(weights)), weights)
    channels = weights_package.input_channels(weights.model, weights_package.shapes(weights.params))
    assert channels == 3


@pytest.mark.parametrize("visible", ["gaussian", "bernoulli"])
def test_belief_networks_in_native_layout(visible):
    weights = make("dbn", size=8, widths=(12, 5), visible=visible, head=MLP((4, 3)))
    arrays = native.encode(weights)
    assert_same(native.decode(arrays), weights)
    # The npz reader returns texts separately from arrays.
    text = str(arrays.pop("model"))
    assert_same(layouts.decode(arrays, model=text), weights)


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_stacked_autoencoders_in_native_layout(kind):
    weights = make("sdae", size=8, widths=(12, 5), kind=kind, head=MLP((4, 3)))
    arrays = native.encode(weights)
    assert_same(layouts.decode(arrays), weights)


def test_resnets_of_patches_in_native_layout():
    options = {"width": 0.125, "norm": "layer", "patch": 8, "patch_stride": 4}
    weights = make("resnet10", classes=3, **options)
    assert_same(layouts.decode(native.encode(weights)), weights)


def test_every_model_is_tested():
    tested = {name for name, *_ in (*RESNETS, *VITS)} | {"dbn", "sdae"}
    split = set(models.SPLIT_RESNETS)  # differ from each other as ResNets do
    assert {name for name, _ in CONVERTING} & split
    # These differ from vit_tiny and resnet101 in size only.
    skipped = split | {"vit_small", "vit_base", "vit_large", "resnet101_stage3", "resnet161"}
    skipped |= {"audio_cnn_gru", "embedding"}  # of other modalities: exports hold image encoders
    assert tested | skipped == set(models.names())


def test_error_names_arrays_that_do_not_fit():
    arrays = torch_resnet.encode(make("resnet10", width=0.25))
    del arrays["layer2.0.bn1.bias"]
    arrays["layer3.0.extra"] = np.zeros(1)
    arrays["bn1.running_mean"] = np.zeros(7)
    with pytest.raises(Fault) as caught:
        layouts.decode(arrays)
    message = str(caught.value)
    assert "missing: layer2.0.bn1.bias" in message
    assert "unexpected: layer3.0.extra" in message
    assert "misshapen: bn1.running_mean [7]" in message
    assert "resnet10 (width=0.25" in message


def test_unsupported_networks_are_refused_with_reason():
    arrays = torch_resnet.encode(make("resnet10", width=0.25))
    deeper = arrays | {n.replace("layer1.0", "layer1.1"): a for n, a in arrays.items()}
    with pytest.raises(
        Fault, match=r"BasicBlocks in stages of \(2, 1, 1, 1\). Supported are: resnet8"
    ):
        layouts.decode(deeper)
    with pytest.raises(
        Fault, match=r"unknown layout with the arrays a, b\. Known layouts: ssl_jax; BYOL"
    ):
        layouts.decode({"a": np.zeros(1), "b": np.zeros(1)})
    with pytest.raises(
        Fault, match=r"unknown hint heads\. Accepted are: padding, mean, std, model"
    ):
        layouts.decode(arrays, heads=3)
    vit = torch_vit.encode(make("vit_micro", 32), 32)
    with pytest.raises(Fault, match=r"width 64, depth 4 and 3 heads\. Supported are: vit_micro"):
        layouts.decode(vit, heads=3)
    with pytest.raises(Fault, match="4 positions do not fit images of 224 pixels in patches of 16"):
        layouts.decode(vit, size=224)
    with pytest.raises(Fault, match="fc_norm normalises after pooling"):
        layouts.decode(vit | {"fc_norm.weight": np.zeros(64)})


def test_decode_selects_the_encoder_inside_a_method():
    weights = make("resnet10", width=0.25)
    state = torch_resnet.encode(weights)
    rng = np.random.default_rng(0)
    f = 128
    layers = {"fc.0": (f, f), "fc.2": (8, f)}
    head = {f"{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in layers.items()}
    head |= {f"{n}.bias": rng.normal(size=s[:1]).astype(np.float32) for n, s in layers.items()}
    moving = {f"module.encoder_k.{n}": np.zeros_like(a) for n, a in state.items()}
    query = {f"module.encoder_q.{n}": a for n, a in (state | head).items()}
    decoded = layouts.decode(moving | query | {"module.queue": np.zeros((4, 2))})
    assert decoded.model["mean"] == (0.485, 0.456, 0.406)
    jax.tree.map(np.testing.assert_array_equal, decoded.params, weights.params)
    np.testing.assert_array_equal(
        decoded.others["head"]["params"]["dense1"]["kernel"], head["fc.2.weight"].T
    )
    # MoCo v1: the projection is one layer and has the shape of a classifier.
    query = {f"module.encoder_q.{n}": a for n, a in state.items()}
    query |= {"module.encoder_q.fc.weight": head["fc.2.weight"]}
    query |= {"module.encoder_q.fc.bias": head["fc.2.bias"]}
    decoded = layouts.decode(query)
    assert list(decoded.others) == ["head"]
    assert list(decoded.others["head"]["params"]) == ["dense0"]
    # SimSiam: a head with BatchNorm is left out.
    query |= {"module.encoder_q.fc.1.running_mean": np.zeros(f)}
    assert layouts.decode(query).others == {}
    # A linear evaluation saves a classifier and no prefix of a method.
    plain = {f"module.{n}": a for n, a in torch_resnet.encode(make("resnet10", classes=2)).items()}
    assert list(layouts.decode(plain).others) == ["classifier"]
    two = {f"{n}.{k}": a for n in ("one", "two") for k, a in state.items()}
    with pytest.raises(Fault, match=r"several networks: one\., two\."):
        layouts.decode(two)


def test_decode_names_of_big_vision():
    weights = make("vit_micro", 64)
    arrays = npz_vit.encode(weights, 64)
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    theirs = {"pos_embedding": table[:, 1:]}  # big_vision's class token has no position
    for name, array in arrays.items():
        name = name.replace("Attention_1/", "Attention_0/").replace("MlpBlock_3", "MlpBlock_0")
        theirs[name.replace("LayerNorm_2", "LayerNorm_1")] = array
    theirs = {f"params/{name}": array for name, array in theirs.items()}
    assert_same(layouts.decode(theirs, mean=(0.0,) * 3, std=(1.0,) * 3), weights)
    del theirs["params/cls"]
    with pytest.raises(Fault, match="no class token"):
        layouts.decode(theirs)


def test_decode_leaves_out_the_decoder_of_mae():
    weights = make("vit_micro", 64)
    arrays = torch_vit.encode(weights, 64)
    decoder = {"mask_token": np.zeros((1, 1, 8)), "decoder_pos_embed": np.zeros((1, 17, 8))}
    decoder |= {"decoder_blocks.0.attn.qkv.weight": np.zeros((24, 8))}
    assert_same(layouts.decode(arrays | decoder), weights)
