"""Denoising autoencoders: each stage's loss against NumPy, and which layers learn when."""

import itertools

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import scipy.special
import tiny

from ssl_jax import parallel
from ssl_jax.methods import Run, _corruption, denoising
from ssl_jax.models import sdae
from ssl_jax.models.decoder import Decoder
from ssl_jax.models.resnet import BasicBlock, ResNet
from ssl_jax.optim import optimizers
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe

B, STEPS, SIZE = 8, 9, 4
SIGMOID = scipy.special.expit


def make(encoder=None, *, steps=STEPS, views=1, widths=(5, 4), kind="dense", **options):
    run = Run(tiny.seen(views, SIZE), steps, B, num_examples=B)
    return denoising.make(encoder or sdae.SDAE(widths, kind, jnp.float64), run, **options)


def to_float64(tree):
    return jax.tree.map(
        lambda x: x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def rows(count=1):
    batches = [to_float64(batch) for batch in linear.batches(count, B, views=1, size=SIZE)]
    return [batch | {"views": SIGMOID(batch["views"])} for batch in batches]


def float32(batch):
    return batch | {"views": jnp.asarray(batch["views"], jnp.float32)}


def cost(x, z, corrupted, loss, alpha, beta):
    error = (x - z) ** 2 if loss == "squared_error" else -x * np.log(z) - (1 - x) * np.log(1 - z)
    return np.sum(error * np.where(corrupted, alpha, beta)) / len(x)


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize(
    ("noise", "loss", "alpha", "beta", "tied"),
    [
        ("masking", "cross_entropy", 1.0, 0.25, True),
        ("salt_and_pepper", "squared_error", 1.0, 0.0, False),
        ("gaussian", "squared_error", 2.0, 2.0, True),
    ],
)
def test_each_stage_denoises_the_clean_code_below(stage, noise, loss, alpha, beta, tied):
    with jax.enable_x64(True):
        method = make(
            noise=noise, noise_level=0.3, loss=loss, corrupted_weight=alpha, clean_weight=beta,
            tied=tied,
        )  # fmt: skip
        batch, key = rows()[0], jax.random.key(9)
        params, _ = to_float64(method.init(jax.random.key(1), batch))
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda x: x + 0.5 * rng.standard_normal(x.shape), params)
        extra = {"stage": jnp.int32(stage)}

        def objective(params):
            outputs, _ = method.encode(params, extra, batch, key)
            loss, (_, metrics) = method.objective(params, extra, outputs, key, jnp.int32(0))
            return loss, (outputs, metrics)

        (got, (outputs, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        images = batch["views"][:, 0].reshape(B, -1)
        weights = jax.device_get(params)
        encoder, decoder = weights["encoder"], weights["decoder"]

        def up(i, x):
            layer = encoder[f"layer{i}"]
            return SIGMOID(np.asarray(x) @ layer["kernel"] + layer["bias"])

        def down(i, code):
            kernel = decoder[f"layer{i}"].get("kernel", encoder[f"layer{i}"]["kernel"])
            return SIGMOID(code @ kernel.T + decoder[f"layer{i}"]["bias"])

        x = up(0, images) if stage == 1 else images
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["index"])
        noisy, corrupted = _corruption.corrupt(keys, jnp.asarray(x), noise, 0.3)
        if stage == 2:
            top = up(1, up(0, noisy))
            pixels = z = down(0, down(1, top))
        elif stage == 1:
            top = up(1, noisy)
            z = down(1, top)
            pixels = down(0, z)
        else:
            pixels = z = down(0, up(0, noisy))
            top = up(1, up(0, noisy))
    np.testing.assert_allclose(got, cost(x, z, np.asarray(corrupted), loss, alpha, beta))
    np.testing.assert_allclose(outputs["features"][:, 0], top)
    np.testing.assert_allclose(metrics["reconstruction_error"], np.square(images - pixels).mean())
    np.testing.assert_allclose(metrics["reconstruction_chance"], images.var(0).mean())
    assert metrics["stage"] == stage
    for module, layers in grads.items():
        for i, layer in enumerate(layers.values()):
            learns = stage in (i, 2)
            for name, gradient in layer.items():
                assert gradient.any() == learns, (module, i, name)


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_layers_learn_in_turn_and_then_together(kind):
    method, batch = make(kind=kind), rows()[0]
    # Weight decay and momentum would move parameters without gradient.
    settings = {"lr_rule": "constant", "batch_size": B, "warmup_steps": 0, "total_steps": STEPS}
    tx, schedule = optimizers.make(
        "adamw", lr=0.1, weight_decay=0.1, turns=method.turns, **settings
    )
    mesh = parallel.make_mesh(jax.devices()[:1])
    with jax.enable_x64(True):
        init = states.init_fn(method, tx, Probe(0), batch, seed=2)
        train = jax.jit(step.make_train_step(method, tx, schedule, Probe(0), seed=2, mesh=mesh))
        state = jax.jit(lambda: to_float64(init()))()
        history, stages = [jax.device_get(state.params)], []
        for _ in range(STEPS):
            stages.append(int(state.extra["stage"]))
            state, _ = train(state, batch)
            history.append(jax.device_get(state.params))
    assert stages == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for stage, (before, after) in zip(stages, itertools.pairwise(history), strict=True):
        for path, x in jax.tree_util.tree_leaves_with_path(before):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            y = after[path[0].key][path[1].key][path[2].key]
            learns = stage == 2 or f"layer{stage}" in name
            assert np.array_equal(x, y) != learns, (stage, name)


def test_turns_divide_the_run_equally():
    assert make(steps=10).turns["encoder/layer0"] == ((0, 4), (7, 10))
    assert make(steps=10).turns["decoder/layer1"] == ((4, 7), (7, 10))
    assert make(steps=10, end_to_end=False).turns["encoder/layer1"] == ((5, 10),)
    assert make(steps=10, widths=(3,)).turns["encoder/layer0"] == ((0, 10),)
    assert make(tiny.Encoder()).turns == {}


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_another_encoder_reconstructs_images_by_a_decoder(loss):
    with jax.enable_x64(True):
        encoder = ResNet(
            BasicBlock, (1,), width=0.05, stem="cifar", zero_gamma=False, dtype=jnp.float64
        )
        method = make(encoder, loss=loss, noise_level=0.5, clean_weight=0.5, decoder_width=4)
        batch, key = rows()[0], jax.random.key(9)
        params, extra = to_float64(method.init(jax.random.key(1), batch))
        outputs, stats = method.encode(params, extra, batch, key)
        value, _ = method.objective(params, extra, outputs, key, jnp.int32(0))
        images = batch["views"][:, 0]
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["index"])
        noisy, corrupted = _corruption.corrupt(keys, jnp.asarray(images), "masking", 0.5)
        variables = {
            name: {"params": params[name], "batch_stats": extra["batch_stats"][name]}
            for name in ("encoder", "decoder")
        }
        mutable = {"mutable": ["batch_stats"]}
        features, _ = encoder.apply(variables["encoder"], noisy, True, **mutable)
        decoder = Decoder(SIZE, 4, 3, dtype=jnp.float64)
        z = np.asarray(decoder.apply(variables["decoder"], features, True, **mutable)[0])
        after = method.after_update(params, extra, stats, jnp.int32(0))
    want = cost(images, z, np.asarray(corrupted), loss, 1.0, 0.5)
    np.testing.assert_allclose(value, want, rtol=1e-9)
    np.testing.assert_allclose(outputs["features"][:, 0], features, rtol=1e-9)
    np.testing.assert_allclose(outputs["error"], np.square(images - z).mean((1, 2, 3)), rtol=1e-9)
    assert jax.tree.structure(after) == jax.tree.structure(extra)


def test_a_decoder_of_constants_has_the_loss_of_its_constants():
    """With zero weights, every pixel is 1/2: the cross-entropy is ln 2 per component."""
    method, batch = make(tiny.Encoder()), float32(rows()[0])
    params, extra = method.init(jax.random.key(1), batch)
    params["decoder"] = jax.tree.map(jnp.zeros_like, params["decoder"])
    outputs, _ = method.encode(params, extra, batch, jax.random.key(2))
    np.testing.assert_allclose(outputs["cost"], 3 * SIZE**2 * np.log(2), rtol=1e-6)
    want = np.square(np.asarray(batch["views"][:, 0]) - 0.5).mean((1, 2, 3))
    np.testing.assert_allclose(outputs["error"], want, rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "convolutional", "resnet"])
def test_pictures_show_original_noise_and_reconstruction(kind):
    encoder = tiny.Encoder() if kind == "resnet" else sdae.SDAE((5, 4), kind)
    method = make(encoder, noise="salt_and_pepper", noise_level=0.4)
    batch = float32(rows()[0])
    params, extra = method.init(jax.random.key(1), batch)
    images, key = batch["views"][:3, 0], jax.random.key(5)
    picture, *filters = method.pictures
    grid = np.asarray(jax.jit(picture.draw)(params, extra, images, key))
    assert grid.shape == (3, 3, SIZE, SIZE, 3)
    assert picture.columns == ("original", "salt and pepper noise", "reconstruction")
    np.testing.assert_array_equal(grid[:, 0], images)
    same = grid[:, 1] == grid[:, 0]
    assert np.isin(grid[:, 1][~same], (0, 1)).all()
    assert 0.3 < 1 - same.mean() < 0.5
    # The reconstruction is made from the corrupted image: other noise, other reconstruction.
    other = np.asarray(picture.draw(params, extra, images, jax.random.key(6)))
    assert (other[:, 2] != grid[:, 2]).any()
    assert [one.name for one in filters] == ([] if kind == "resnet" else ["filters"])
    for one in filters:
        drawn = one.draw(params, extra, images, key)
        shape = (SIZE, SIZE) if kind == "dense" else (5, 5)
        assert drawn.shape == (1, 5, *shape, 3)
        assert 0 <= drawn.min() <= drawn.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 2}, "1 view"),
        ({"noise": "blur"}, "noise must be one of"),
        ({"noise_level": 2.0}, "a fraction"),
        ({"loss": "hinge"}, "loss must be one of squared_error, cross_entropy; got 'hinge'"),
        ({"corrupted_weight": -1.0}, "must be at least 0"),
        ({"corrupted_weight": 0.0, "clean_weight": 0.0}, "one of them above 0"),
        ({"noise": "gaussian", "clean_weight": 0.5}, "gaussian noise corrupts every component"),
        ({"steps": 2}, "3 stages of training need at least one step each, but the run has 2"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
