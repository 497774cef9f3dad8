"""From the fields of `augment` to the batch that a method sees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.simclr import get_config
from ssl_jax import build, components, parallel
from ssl_jax import config as configuration
from ssl_jax.inputs.image.views import View, views_from_fields
from ssl_jax.methods import Method
from ssl_jax.pretrained import classifier
from ssl_jax.training import preview, step
from ssl_jax.training import state as states
from ssl_jax.training.probe import Probe

LOCAL = {"views": 3, "size": 6, "crop_area": (0.1, 0.3), "grayscale": 0.5}


def multi_crop(placement="device"):
    """Returns a config of digits with two views and three local views.

    It has no jitter, which takes long to compile.
    """
    config = get_config("digits")
    config.augment.update(placement=placement, jitter=0.0, second={"noise": 0.3}, local=LOCAL)
    config.train.update(batch_size=32, steps=2)
    return config


def first_batch(config):
    source = components.open_source(config, "train")
    return next(components.train_batches(config, source, start_step=0, num_steps=1))


def test_second_and_local_change_their_views():
    config = get_config("imagenet,augment=byol")
    first = View(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, blur=1)
    second = first._replace(blur=0.1, solarize=0.2)
    assert views_from_fields(config.augment.to_dict()) == (first, second)
    config.augment.views = 1
    assert views_from_fields(config.augment.to_dict()) == (first,)
    config.augment.update(views=3, local={"views": 2, "size": 96})
    assert views_from_fields(config.augment.to_dict()) == (
        first,
        second,
        second,
        *[first._replace(size=96)] * 2,
    )


@pytest.mark.parametrize(("views", "local"), [(1, {}), (2, {}), (1, LOCAL), (2, LOCAL)])
def test_batch_on_the_device_has_the_promised_shapes(views, local):
    config = multi_crop()
    config.augment.views, config.augment.local = views, local
    batch = parallel.to_global(first_batch(config), parallel.make_mesh())
    prepared = jax.eval_shape(components.make_input(config).device, batch)
    assert prepared.pop("label").shape == (32,)
    spec = components.batch_spec(config)
    assert {k: (v.shape, v.dtype) for k, v in prepared.items()} == {
        k: (v.shape, v.dtype) for k, v in spec.items()
    }
    assert spec.keys() == {"views", "index"} | ({"local_views"} if local else set())


def test_device_and_host_make_the_same_local_views():
    device, host = (first_batch(multi_crop(placement)) for placement in ("device", "host"))
    device = jax.jit(components.make_input(multi_crop()).device)(device)
    assert device.keys() == host.keys() == {"views", "local_views", "index", "label"}
    for name in ("views", "local_views"):
        np.testing.assert_allclose(device[name], host[name], rtol=0, atol=3e-6)
        assert np.std(host[name]) > 0.1


def moments(batch):
    """Returns mean and variance of every view in grey, full-size views first: [b, v + l, 2]."""
    both = [batch[name].mean(-1) for name in ("views", "local_views")]
    return jnp.concatenate([jnp.stack([x.mean((2, 3)), x.var((2, 3))], -1) for x in both], axis=1)


def linear_method():
    """Returns a method that is linear in the moments; its loss couples examples and all views."""

    def encode(params, extra, batch, key):
        return {"z": moments(batch) @ params["w"]}, {}

    def objective(params, extra, outputs, key, k):
        z = outputs["z"]
        return jnp.mean((z[:, :2].mean(0) - z[:, 2:].mean((0, 1))[None]) ** 2), (extra, {})

    def init(key, batch):
        return {"w": jax.random.normal(key, (moments(batch).shape[-1], 4))}, {}

    return Method(
        init, encode, objective, features=None, after_update=lambda params, extra, *_: extra
    )


@pytest.mark.parametrize("microbatch", [0, 16])
def test_step_takes_local_views_with_and_without_micro_batches(microbatch):
    config = multi_crop()
    batch = first_batch(config)
    mesh = parallel.make_mesh()
    method, tx, probe = linear_method(), optax.sgd(1.0), Probe(0)
    init = states.init_fn(method, tx, probe, components.batch_spec(config), seed=0)
    train_step = step.make_train_step(
        method, tx, lambda _: 1.0, probe, seed=0, mesh=mesh,
        device=components.make_input(config).device, microbatch=microbatch,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        state = states.new_state(init, method.layout, mesh)
        new, metrics = jax.jit(train_step)(state, parallel.to_global(batch, mesh))
    x = np.asarray(moments(first_batch(multi_crop("host"))), np.float64)
    w = np.asarray(state.params["w"], np.float64)
    gap = x[:, :2].mean(0) - x[:, 2:].mean((0, 1))
    np.testing.assert_allclose(metrics["loss"], ((gap @ w) ** 2).mean(), rtol=1e-4)
    gradient = 2 * gap.T @ gap @ w / (gap @ w).size
    np.testing.assert_allclose(w - new.params["w"], gradient, rtol=1e-3, atol=1e-6)


def test_preview_draws_all_views(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "ssl_jax.report.figures.image_grids.draw_views",
        lambda originals, views, path, *, local: drawn.update(
            views=views, local=local, originals=originals
        ),
    )
    config = multi_crop("host")
    source = components.open_source(config, "train")
    preview.draw_views(config, source, tmp_path / "views.png", count=3)
    assert len(drawn["originals"]) == 3
    assert drawn["views"].shape == (3, 2, 12, 12, 3)
    assert drawn["local"].shape == (3, 3, 6, 6, 3)
    config.augment.local = {}
    preview.draw_views(config, source, tmp_path / "views.png", count=3)
    assert drawn["local"] is None


def test_dtype_of_activations_depends_on_the_platform_argument():
    """A plan for a TPU is made on a CPU."""
    assert components.activation_dtype("auto") == jnp.float32
    assert components.activation_dtype("auto", platform="tpu") == jnp.bfloat16
    assert components.activation_dtype("float32", platform="tpu") == jnp.float32
    config = get_config("digits")
    assert components.make_encoder(config, platform="gpu").dtype == jnp.bfloat16
    assert components.make_encoder(config).dtype == jnp.float32


def test_views_depend_on_the_seed_of_the_run():
    config = multi_crop("host")
    record = components.open_source(config, "train").load(0)[0]

    def views(seed):
        config.train.seed = seed
        return np.asarray(components.make_input(config).host(record, 0, 0)["views"])

    np.testing.assert_array_equal(views(1), views(1))
    assert not np.array_equal(views(1), views(2))


def test_labels_reach_the_objective_in_fine_tuning_only(monkeypatch, tmp_path):
    asked = []
    original = build.make_train_step

    def recorded(*args, device, supervised, **options):
        asked.append((device, supervised))
        return original(*args, device=device, supervised=supervised, **options)

    monkeypatch.setattr(build, "make_train_step", recorded)
    config = multi_crop()
    config.augment.local = {}
    mesh = parallel.make_mesh(jax.devices()[:1])
    build.parts(config, mesh)
    encoder = components.make_encoder(config)
    weights = jax.eval_shape(
        lambda key: encoder.init(key, jnp.zeros((2, 12, 12, 3)), False), jax.random.key(0)
    )
    weights = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), weights)
    tuned = configuration.finetuning_config(config)
    tuned.model.bn_group = 8
    groups = []
    network = classifier.make_network
    monkeypatch.setattr(
        classifier, "make_network",
        lambda *args, bn_group, **options: groups.append(bn_group)
        or network(*args, bn_group=bn_group, **options),
    )  # fmt: skip
    parts = build.finetuning_parts(
        tuned,
        ({"encoder": weights["params"]}, {"encoder": weights["batch_stats"]}),
        mesh,
    )
    assert [supervised for _, supervised in asked] == [False, True]
    assert asked[1][0] is parts.input.device
    assert groups == [8]
