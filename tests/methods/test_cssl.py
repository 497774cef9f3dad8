"""CSSL: which part learns from which loss, quality of the pseudo-labels, and generated samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from sklearn.metrics import adjusted_mutual_info_score

from configs.cssl import get_config
from ssl_jax import components, parallel
from ssl_jax.data import pipeline, sources
from ssl_jax.inputs.image.make import input_from_views
from ssl_jax.inputs.image.recipes import RECIPES
from ssl_jax.methods import Run, cssl
from ssl_jax.models import mixture
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe

B, SIZE, K = 16, 8, 5
KEY = jax.random.key(3)
SMALL = {"components": K, "code_dim": 4, "hidden_dim": 16, "decoder_width": 4}


def make(views=2, batch_size=B, **options):
    run = Run(tiny.seen(views, SIZE), 8, batch_size, num_examples=64)
    return cssl.make(tiny.Encoder(), run, **SMALL | options)


def batch():
    rng = np.random.default_rng(1)
    views = rng.random((B, 2, SIZE, SIZE, 3), np.float32)
    return {"views": jnp.asarray(views), "index": jnp.arange(B, dtype=jnp.int32)}


@pytest.fixture(scope="module")
def start():
    return jax.jit(make().init)(KEY, batch())


@jax.jit
def gradient(params, extra, weights):
    """Gradient of the loss by the parameters and by the outputs.

    The weights of the losses are traced, so that one program serves all of them.
    """
    method = make(**weights)
    outputs, _ = method.encode(params, extra, batch(), KEY)

    def loss_of_params(params):
        outputs, _ = method.encode(params, extra, batch(), KEY)
        return method.objective(params, extra, outputs, KEY, jnp.zeros((), jnp.int32))[0]

    def loss_of_outputs(outputs):
        return method.objective(params, extra, outputs, KEY, jnp.zeros((), jnp.int32))[0]

    return jax.grad(loss_of_params)(params), jax.grad(loss_of_outputs)(outputs)


NAMES = ("fool_weight", "distance_weight", "reconstruction_weight")


def gradients_with_weights(start, fool=0.0, distance=0.0, reconstruction=0.0, **changed):
    params, extra = start
    weights = dict(zip(NAMES, (fool, distance, reconstruction), strict=True))
    return gradient(params | changed, extra, weights)


def close(a, b):
    scale = optax.tree.norm(b)
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, a, b))) <= 1e-5 * scale + 1e-9


def test_each_network_learns_only_from_its_losses(start):
    plain, _ = gradients_with_weights(start)
    for weight in ("fool", "distance", "reconstruction"):
        gradients, _ = gradients_with_weights(start, **{weight: 1.0})
        moved = {name for name in gradients if not close(gradients[name], plain[name])}
        decoder = {"decoder"} if weight == "reconstruction" else set()
        assert moved == {"encoder", "code"} | decoder, weight
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(plain["decoder"]))
    for name in ("encoder", "code", "discriminator"):
        assert optax.tree.norm(plain[name]) > 1e-4, name
    # The encoder depends on the discriminator through the fooling loss alone.
    other = jax.tree.map(lambda x: x + 0.3, start[0]["discriminator"])
    for fool in (0.0, 1.0):
        a, b = (
            gradients_with_weights(start, fool=fool, **d)[0] for d in ({}, {"discriminator": other})
        )
        assert close(a["encoder"], b["encoder"]) == (fool == 0)


def test_first_embedding_receives_no_gradient(start):
    _, outputs = gradients_with_weights(start, 1.0, 1.0, 1.0)
    assert not np.any(outputs["first"])
    assert np.all(np.abs(outputs["code"]).sum((1, 2)) > 0)
    np.testing.assert_allclose(outputs["error"], 1 / B, rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.9, 1.0])
def test_first_embedding_network_is_a_moving_average(start, momentum):
    method, (params, extra) = make(momentum=momentum), start
    _, stats = method.encode(params, extra, batch(), KEY)
    new = method.after_update(params, extra, stats, jnp.zeros((), jnp.int32))
    assert set(new["first"]) == {"encoder", "code"}
    for name, tree in new["first"].items():
        want = jax.tree.map(
            lambda old, now: momentum * old + (1 - momentum) * now,
            extra["first"][name],
            params[name],
        )
        assert close(tree, want)
    assert new["mixture"] is extra["mixture"]


def test_whitened_rows_have_unit_covariance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2, 3)) @ rng.normal(size=(3, 3)) + 5
    whitened = np.asarray(cssl._whiten(jnp.asarray(x, jnp.float32))).reshape(-1, 3)
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=0.02)
    # In a collapse all rows are equal.
    assert np.isfinite(cssl._whiten(jnp.ones((4, 2, 3)))).all()


def test_each_row_of_samples_comes_from_one_component_heaviest_first(start):
    params, extra = start
    mass = jnp.array([0.1, 0.3, 0.05, 0.35, 0.2])
    mean = jax.random.normal(KEY, (K, 4)) * 2
    second = mass[:, None] * jnp.square(mean)
    extra = extra | {"mixture": mixture.Mixture(mass, mass[:, None] * mean, second)}
    method = make(variance_floor=1e-12)
    (picture,) = method.pictures
    draw = jax.jit(picture.draw)
    samples = draw(params, extra, jnp.zeros(()), KEY)
    assert (samples.shape, samples.dtype) == ((K, 10, SIZE, SIZE, 3), jnp.float32)
    assert samples.min() >= 0
    assert samples.max() <= 1
    # Without variance, all samples of a component are the image of its mean.
    np.testing.assert_allclose(samples[:, :1].repeat(9, 1), samples[:, 1:], atol=1e-3)
    assert np.abs(np.diff(samples[:, 0], axis=0)).max((1, 2, 3)).min() > 0.02
    without_heaviest = extra["mixture"]._replace(mass=mass.at[3].set(0.001))
    others = draw(params, extra | {"mixture": without_heaviest}, jnp.zeros(()), KEY)
    np.testing.assert_allclose(others[:-1], samples[1:], atol=1e-3)


def test_pseudo_labels_learn_digit_classes():
    """Pseudo-labels agree with the unseen classes, and the code learns to predict them."""
    steps, b = 40, 64
    views = tuple(view._replace(size=8) for view in RECIPES["digits"])
    source = sources.open_source("digits", data_dir="", split="train")
    rows = list(
        pipeline.train_batches(
            source, input_from_views(views, seed=4), batch_size=b, seed=4, start_step=0,
            num_steps=steps,
        )
    )  # fmt: skip
    rows = [parallel.to_global(row, mesh := parallel.make_mesh(jax.devices()[:1])) for row in rows]
    config = get_config("cifar10_cpu")
    config.method.update(components=30, code_dim=8, hidden_dim=32, decoder_width=4)
    fields = config.method.to_dict()
    del fields["name"]
    method = cssl.make(tiny.Encoder(), Run(tiny.seen(2, 8), steps, b, source.size), **fields)
    tx, schedule = components.make_optimizer(config, source.size, steps)
    state = jax.jit(states.init_fn(method, tx, Probe(0), rows[0], seed=5))()
    run = jax.jit(step.make_train_step(method, tx, schedule, Probe(0), seed=5, mesh=mesh))
    history, predicted, labels = [], [], []

    @jax.jit
    def pseudo_labels(state, views):
        outputs, _ = method.encode(state.params, state.extra, {"views": views}, KEY)
        prior = mixture.gaussians(state.extra["mixture"], config.method.variance_floor)
        return mixture.log_joint(prior, cssl._whiten(outputs["first"])).argmax(-1)

    for k, row in enumerate(rows):
        if k >= steps - 20:
            predicted.append(pseudo_labels(state, row["views"]))
            labels.append(row["label"])
        state, metrics = run(state, row)
        history.append(jax.device_get(metrics))
    # The score is 0 for labels that carry no information.
    score = adjusted_mutual_info_score(np.concatenate(labels), np.concatenate(predicted))
    first, last = ({n: np.mean([m[n] for m in part]) for n in part[0]}
                   for part in (history[:10], history[-10:]))  # fmt: skip
    assert score > 0.05
    assert last["pair_loss"] < first["pair_loss"] - 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 1}, "takes 2 views"),
        ({"components": 17}, "17 components need as many images .* a batch has 16"),
        ({"em_power": 0.5}, r"em_power must be in \(0.5, 1\], got 0.5"),
        ({"em_offset": -1}, "em_offset must be at least 0, got -1"),
        ({"dropout": 1.0}, r"must be in \[0, 1\), got 1.0 and 0.1"),
        ({"min_share": 1.0}, r"must be in \[0, 1\), got 0.1 and 1.0"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
