"""Backbones of runs: their features, and paths and images that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_train import run, small, tiny_encoder

import ssl_jax
from ssl_jax import components
from ssl_jax import config as configuration
from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.pretrained import backbone


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    run(small(train__steps=2), path)
    return path


@pytest.fixture
def tiny_models(monkeypatch):
    monkeypatch.setattr("ssl_jax.models.get", tiny_encoder)


def images(n=5, size=12):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def test_backbone_of_a_run_gives_the_features_of_its_encoder(trained, tiny_models):
    net = ssl_jax.load_backbone(trained)
    features = net(images())
    variables = {"params": net.weights.params, "batch_stats": net.weights.batch_stats}
    want = tiny.Encoder().apply(variables, images().astype(np.float32) / 255, False)
    np.testing.assert_allclose(features, want, rtol=1e-5, atol=1e-6)
    # This program does not divide by 255, so its rounding differs.
    same = net(images().astype(np.float32) / 255)
    np.testing.assert_allclose(same, features, rtol=1e-5, atol=1e-6)
    assert features.dtype == jnp.float32
    assert (net.size, net.crop, net.classes) == (12, 1.0, ())
    assert net.origin == "run, step 2"
    assert net.weights.others["head"]["params"]["dense0"]["kernel"].shape[0] == 8


def test_backbone_gives_the_features_of_the_method(trained, tiny_models):
    config = configuration.load(trained)
    method = components.make_method(config, 2, 64, devices=1)
    params, stats, _, _ = backbone.modules_from_run(config, trained)
    net = backbone.load(trained)
    x = images().astype(np.float32) / 255
    want = method.features(params, {"batch_stats": stats}, x)
    np.testing.assert_allclose(net(x), want, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(net.weights.params) == jax.tree.structure(params["encoder"])


def test_hints_for_a_run_and_missing_paths_are_refused(trained, tiny_models, tmp_path):
    with pytest.raises(Fault, match="its config states size") as refused:
        backbone.load(trained, size=24)
    assert refused.value.code == USAGE
    with pytest.raises(Fault, match="nowhere") as refused:
        backbone.load(tmp_path / "nowhere")
    assert refused.value.code == MISSING_INPUT


def test_images_of_other_shapes_or_dtypes_are_refused(trained, tiny_models):
    net = backbone.load(trained)
    one = images()[0]
    for wrong in (one, one[None, ..., :1], images().astype(np.int64), [1, 2], None):
        with pytest.raises(ValueError, match="images must be an array"):
            net(wrong)
    assert "run, step 2" in repr(net)
    assert len(repr(net)) < 500


def test_floats_far_outside_the_unit_interval_are_refused(trained, tiny_models):
    net = backbone.load(trained)
    good = images().astype(np.float32) / 255
    standardised = (good - 0.45) / 0.25
    nan = np.where(np.arange(12)[:, None] == 3, np.nan, good).astype(np.float32)
    for wrong, text in (
        (good * 255, r"from 0 to 255\. Divide by 255 or pass uint8"),
        (images().astype(np.float64), "from 0 to 255"),
        (standardised, r"from -1\.(8|797) to 2\.2"),
        (np.full_like(good, np.inf), "to inf"),
        (nan, "from nan to nan"),
    ):
        for array in (wrong, jnp.asarray(wrong), jnp.asarray(wrong, jnp.bfloat16)):
            with pytest.raises(ValueError, match=text):
                net(array)
    overshoot = good.copy()
    overshoot[0, 0, 0, 0], overshoot[0, 0, 1, 0] = -0.45, 1.45  # bicubic with a = -0.75
    for right in (overshoot, good.astype(np.float16), good[:0], jnp.asarray(good)):
        assert net(right).shape == (len(right), 8)
    assert jax.jit(lambda x: net(x))(good).shape == (5, 8)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(Fault, match="neither a run, nor an export") as refused:
        backbone.load(tmp_path)
    assert refused.value.code == MISSING_INPUT
