"""Options of SimCLR's head: dropout with a key for each example, and penalties on its weights."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import tiny

from ssl_jax import testing
from ssl_jax.losses import penalty
from ssl_jax.methods import Run, simclr
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import ProjectionHead, drop_activations

B = 8
RUN = Run(tiny.seen(2, 2), 5, B, 16)
KEY = jax.random.key(4)
(BATCH,) = linear.batches(1, B)


def make(**options):
    return simclr.make(linear.Linear(), RUN, hidden_dim=16, output_dim=4, **options)


def encoded(method, batch=BATCH, key=KEY):
    params, extra = method.init(jax.random.key(1), BATCH)
    return method.encode(params, extra, batch, key)[0]["z"]


def test_dropped_activations_are_zero_and_the_others_larger():
    x = jnp.asarray(np.random.default_rng(0).random((40, 50)) + 1, jnp.float32)
    keys = jax.random.split(KEY, 40)
    out = np.asarray(drop_activations(x, 0.25, keys, 0))
    kept = out != 0
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(out[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    # A row depends on its own key only, and layers differ.
    np.testing.assert_array_equal(drop_activations(x[7:9], 0.25, keys[7:9], 0), out[7:9])
    assert (np.asarray(drop_activations(x, 0.25, keys, 1)) != out).any(1).all()
    assert len({row.tobytes() for row in kept}) == 40


def test_dropout_follows_the_example_and_differs_between_views_and_steps():
    """Equal images: only the dropout can make their projections differ."""
    same = {"views": np.ones_like(BATCH["views"]), "index": np.arange(B, dtype=np.int32)}
    # Different images in the rest of the batch keep the normalisation from dividing by 0.
    same["views"][4:] = BATCH["views"][4:]
    z = np.asarray(encoded(make(head_dropout=0.5), same))
    assert len(np.unique(z[:4].reshape(8, -1).round(4), axis=0)) > 6
    order = np.array([2, 0, 3, 1, 4, 5, 6, 7])
    moved = encoded(make(head_dropout=0.5), {k: v[order] for k, v in same.items()})
    np.testing.assert_allclose(moved, z[order], rtol=1e-4, atol=1e-5)
    other = np.asarray(encoded(make(head_dropout=0.5), same, jax.random.key(5)))
    assert np.abs(other - z).max() > 0.01
    plain = np.asarray(encoded(make(), same))
    np.testing.assert_allclose(plain[:4, 1], plain[:4, 0], atol=1e-5)


def test_dropout_acts_in_training_only():
    head = ProjectionHead(hidden_dim=16, output_dim=4, dropout=0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, 4)), jnp.float32)
    variables = head.init(jax.random.key(0), x, True)
    plain = ProjectionHead(hidden_dim=16, output_dim=4)
    assert jax.tree.structure(plain.init(jax.random.key(0), x, True)) == jax.tree.structure(
        variables
    )
    np.testing.assert_array_equal(head.apply(variables, x, False), plain.apply(variables, x, False))
    with pytest.raises(ValueError, match="needs a random key for each row"):
        head.apply(variables, x, True, mutable=["batch_stats"])


def test_a_chain_gives_every_view_its_own_key():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(B, 1, 4)), jnp.float32)
    images = images.repeat(2, axis=1)
    head = ProjectionHead(hidden_dim=16, output_dim=4, dropout=0.5)
    chain = Chain(0, 2, head=head)
    params, stats = chain.init(jax.random.key(0), images)
    out, _ = chain(params, stats, images, keys=jax.random.split(KEY, B))
    assert (np.abs(out["head"][:, 0] - out["head"][:, 1]).max(1) > 1e-3).all()


@pytest.mark.parametrize("name", ["l2", "smooth_l1"])
def test_the_penalty_of_the_head_adds_to_the_loss(name):
    plain, penalised = make(), make(head_penalty=name, head_penalty_weight=0.3)
    params, extra = plain.init(jax.random.key(1), BATCH)
    outputs, _ = plain.encode(params, extra, BATCH, KEY)

    def loss(method):
        return jax.value_and_grad(
            lambda params: method.objective(params, extra, outputs, KEY, 0), has_aux=True
        )(params)

    (value, (_, metrics)), _ = loss(plain)
    (more, (_, logged)), gradient = loss(penalised)
    want = 0.3 * getattr(penalty, name)(params["head"])
    assert float(want) > 0
    assert float(more - value) == pytest.approx(float(want), rel=1e-3)
    assert float(logged["head_penalty"]) == pytest.approx(float(want))
    assert "head_penalty" not in metrics
    assert not np.any(gradient["encoder"]["dense"]["kernel"])
    kernel = params["head"]["dense0"]["kernel"]
    pull = kernel if name == "l2" else np.clip(100 * kernel, -1, 1)
    np.testing.assert_allclose(gradient["head"]["dense0"]["kernel"], 0.3 * pull, rtol=1e-5)


def test_a_strong_penalty_shrinks_the_weights():
    rows = linear.batches(1, B) * 10
    norms = []
    for options in ({}, {"head_penalty": "l2", "head_penalty_weight": 0.5}):
        _, state = linear.trajectory(make(**options), rows, learning_rate=0.1)
        norms.append(float(penalty.l2(state.params["head"])))
    assert norms[1] < 0.5 * norms[0]


def test_the_contract_holds_with_dropout_and_penalty():
    testing.check_method(
        simclr.make, hidden_dim=8, output_dim=4, head_dropout=0.3, head_penalty="smooth_l1",
    )  # fmt: skip


def test_the_defaults_change_neither_the_program_nor_the_key():
    def text(**options):
        method = make(**options)
        params, extra = method.init(jax.random.key(1), BATCH)

        def step(params, batch):
            outputs, _ = method.encode(params, extra, batch, KEY)
            return method.objective(params, extra, outputs, KEY, jnp.int32(0))

        return str(jax.make_jaxpr(step)(params, BATCH))

    assert "random_bits" not in text()
    assert "random_bits" in text(head_dropout=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dropout": 1.0}, r"head_dropout must be in \[0, 1\).* got 1.0"),
        ({"head_dropout": -0.1}, "got -0.1"),
        ({"head_dropout": 0.1, "head_depth": 1}, "without hidden layer; got 0.1 with head_depth 1"),
        ({"head_penalty": "l1"}, "unknown penalty 'l1'; choose one of: none, l2, smooth_l1"),
        (
            {"head_penalty": "l2", "head_penalty_weight": 0.0},
            "weight of a penalty must be a finite number above 0",
        ),
        ({"head_penalty": "l2", "head_penalty_weight": float("nan")}, "got nan"),
        ({"head_penalty": "l2", "head_depth": 0}, "needs a head with weights"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
