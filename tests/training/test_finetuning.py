"""Fine-tuning: network and step against NumPy, and the draw of labels."""

import types

import jax
import jax.numpy as jnp
import linear
import numpy as np
import optax
import pytest
import scipy.special
import tiny

from configs import common, dino, rbm
from ssl_jax import components, parallel
from ssl_jax import config as configuration
from ssl_jax.data import sources
from ssl_jax.data.labels import labelled_subset
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, Fault
from ssl_jax.evals.context import Context
from ssl_jax.inputs.image.views import views_from_fields
from ssl_jax.models import heads
from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP, Classifier, ProjectionHead
from ssl_jax.pretrained import backbone, classifier
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.training import finetuning
from ssl_jax.training import state as states
from ssl_jax.training.probe import Probe
from ssl_jax.training.step import make_train_step

B, CLASSES, STEPS, RATE = 16, 3, 3, 0.3


def rate(_):
    return RATE


def batches(size):
    rng = np.random.default_rng(5)
    return [
        {
            "views": rng.random((B, 1, size, size, 3)),
            "index": np.arange(B, dtype=np.int32),
            "label": rng.integers(0, CLASSES, B, np.int32),
        }
        for _ in range(STEPS)
    ]


def weights(modules, size):
    """Returns random (params, batch_stats) in float64, as a trained run would have."""
    init = jax.jit(Chain(0, 1, **modules).init)
    params, stats = init(jax.random.key(3), jnp.zeros((2, 1, size, size, 3)))
    rng = np.random.default_rng(4)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape) / 2, params)
    return params, jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape), stats)


def steps(modules, trained, rows, devices=1):
    """Returns the states before, between and after steps of plain SGD, and the metrics."""
    networks = Chain(0, 1, **modules, classifier=Classifier(CLASSES))
    tx, mesh = optax.sgd(RATE), parallel.make_mesh(jax.devices()[:devices])
    spec = {name: rows[0][name] for name in ("views", "index")}

    def task(weights):
        return finetuning.make(networks, weights)

    def init(weights):
        method = task(weights)
        return states.init_fn(method, tx, Probe(0), spec, seed=0, supervised=True)()

    function = jax.jit(
        make_train_step(task(trained), tx, rate, Probe(0), seed=0, mesh=mesh, supervised=True)
    )
    history, logged = [], []
    with jax.set_mesh(mesh):
        state = jax.jit(init)(trained)
        state = jax.device_put(state, parallel.replicated(mesh))
        history.append(jax.device_get(state))
        for batch in rows:
            state, metrics = function(state, parallel.to_global(batch, mesh))
            history.append(jax.device_get(state))
            logged.append(jax.device_get(metrics))
    return history, logged


def test_encoder_and_classifier_learn_as_in_numpy():
    rows = batches(2)
    with jax.enable_x64(True):
        modules = {"encoder": linear.Linear(dtype=jnp.float64)}
        trained = weights(modules, 2)
        history, logged = steps(modules, trained, rows)
    w = trained[0]["encoder"]["dense"]["kernel"]
    v, c = np.zeros((4, CLASSES)), np.zeros(CLASSES)
    np.testing.assert_array_equal(history[0].params["encoder"]["dense"]["kernel"], w)
    for batch, metrics in zip(rows, logged, strict=True):
        x, y = batch["views"].reshape(B, -1), batch["label"]
        logits = x @ w @ v + c
        log_p = scipy.special.log_softmax(logits, axis=-1)
        np.testing.assert_allclose(metrics["loss"], -log_p[np.arange(B), y].mean(), rtol=1e-6)
        np.testing.assert_allclose(metrics["accuracy"], np.mean(logits.argmax(1) == y))
        delta = (np.exp(log_p) - np.eye(CLASSES)[y]) / B
        grads = x.T @ delta @ v.T, (x @ w).T @ delta, delta.sum(0)
        norm = np.sqrt(sum(np.square(g).sum() for g in grads))
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
        w, v, c = (p - RATE * g for p, g in zip((w, v, c), grads, strict=True))
    assert np.isclose(logged[0]["loss"], np.log(CLASSES))
    last = history[-1].params
    np.testing.assert_allclose(last["encoder"]["dense"]["kernel"], w, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(last["classifier"]["dense"]["kernel"], v, rtol=1e-4, atol=1e-6)


def test_eight_devices_train_as_one_and_statistics_change():
    with jax.enable_x64(True):
        head = ProjectionHead(2, 6, 4, dtype=jnp.float64)
        trained = weights({"encoder": tiny.Encoder(dtype=jnp.float64), "head": head}, 8)
        modules = {"encoder": tiny.Encoder(dtype=jnp.float64), "head": head.clone(upto=1)}
        (one, a), (eight, b) = (steps(modules, trained, batches(8), devices=n) for n in (1, 8))
    assert set(one[0].params["head"]) == {"dense0", "bn0"}
    for x, y in zip(jax.tree.leaves((one[-1], a)), jax.tree.leaves((eight[-1], b)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    # The first step starts from the trained weights and statistics of encoder and first head layer.
    for tree, old in ((one[0].params, trained[0]), (one[0].extra["batch_stats"], trained[1])):
        jax.tree.map(np.testing.assert_array_equal, tree["encoder"], old["encoder"])
        layers = {name: old["head"][name] for name in tree["head"]}
        jax.tree.map(np.testing.assert_array_equal, tree["head"], layers)
    before, after = (s.extra["batch_stats"]["head"]["bn0"]["mean"] for s in (one[0], one[-1]))
    assert not np.allclose(before, after)


HEADS = {
    "two layers": (ProjectionHead(2, 6, 4), 2),
    "one layer": (ProjectionHead(1, 6, 4), 1),
    "cut": (ProjectionHead(3, 6, 4, upto=1), 1),
    "mlp": (MLP((6, 4)), 0),
    "mlp with normalised output": (MLP((6, 4), last_norm="plain"), 0),
    "none": (None, 0),
}


@pytest.mark.parametrize("name", HEADS)
def test_projection_head_is_inferred_from_its_parameters(name):
    head, layers = HEADS[name]
    params = {}
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    if head is not None:
        params = {"head": head.init(jax.random.key(0), x, True)["params"]}
    encoder = tiny.Encoder()
    for upto in range(4):
        if upto > layers:
            with pytest.raises(Fault, match=f"head_layer={upto}.*simclr") as refused:
                classifier.make_network(encoder, params, upto, CLASSES, name="simclr")
            assert refused.value.code == BAD_CONFIG
        elif upto:
            inferred = heads.infer_projection_head(params["head"], upto, jnp.float32)
            expected = head.clone(upto=upto)
            a, b = (h.init_with_output(jax.random.key(1), x, True) for h in (inferred, expected))
            jax.tree.map(np.testing.assert_array_equal, a, b)


def labelled_source(labels, classes=("a", "b", "c")):
    labels = list(labels)
    return Source(
        name="synthetic",
        size=len(labels),
        record={},
        load=lambda i: (i, {"label": labels[i]}),
        describe=str,
        read_labels=lambda i: {"label": labels[i]},
        class_names={"label": classes} if classes else {},
        label_field="label",
    )


def test_labels_are_drawn_from_each_class_by_its_share():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 46, 4]))
    source = labelled_source(labels.tolist())
    few = labelled_subset(source, fraction=0.1, per_class=0, seed=1)
    rows = [few.load(i)[0] for i in range(few.size)]
    assert np.bincount(labels[rows]).tolist() == [10, 5, 1]  # at least one per class
    assert rows == sorted(set(rows))
    assert [few.read_label(i) for i in range(few.size)] == labels[rows].tolist()
    assert few.describe(0) == str(rows[0])
    again, other = (labelled_subset(source, fraction=0.1, per_class=0, seed=s) for s in (1, 2))
    assert [again.load(i) for i in range(16)] == [few.load(i) for i in range(16)]
    assert [other.load(i) for i in range(16)] != [few.load(i) for i in range(16)]
    three = labelled_subset(source, fraction=1.0, per_class=3, seed=1)
    assert sorted(three.read_label(i) for i in range(three.size)) == [0] * 3 + [1] * 3 + [2] * 3
    assert labelled_subset(source, fraction=1.0, per_class=0, seed=1) is source


def test_missing_labels_are_refused_or_skipped():
    with pytest.raises(Fault, match="class c has 1") as refused:
        labelled_subset(labelled_source([0, 0, 1, 1, 2]), fraction=1.0, per_class=2, seed=0)
    assert refused.value.code == BAD_DATA
    with pytest.raises(Fault, match="no labels"):
        labelled_subset(labelled_source([-1], ()), fraction=0.5, per_class=0, seed=0)
    with pytest.raises(Fault, match="no labels"):
        labelled_subset(labelled_source([-1, -1]), fraction=1.0, per_class=0, seed=0)
    some = labelled_source([2, -1, 0, -1, 0, 1])
    for fraction, rows in ((1.0, [0, 2, 4, 5]), (0.5, [0, 2, 5])):
        drawn = labelled_subset(some, fraction=fraction, per_class=0, seed=1)
        assert [drawn.load(i)[0] for i in range(drawn.size)] == rows


def test_default_recipe_is_that_of_simclr():
    """The recipe is in section 4 and the appendix. Views keep only the geometry of pre-training."""
    pretrained = dino.get_config("imagenet")
    pretrained.train.batch_size = 4096
    config = configuration.finetuning_config(pretrained)
    (view,) = views_from_fields(config.augment.to_dict())
    assert (view.jitter, view.grayscale, view.blur, view.solarize) == (0, 0, 0, 0)
    assert (view.size, view.crop_area, view.flip) == (224, pretrained.augment.crop_area, 0.5)
    optim, train = config.optim, config.train
    assert (optim.name, optim.nesterov, optim.lr, optim.lr_rule) == ("sgd", True, 0.05, "linear")
    assert (optim.momentum, optim.weight_decay, optim.warmup_epochs) == (0.9, 0, 0)
    assert (train.batch_size, train.epochs, train.steps) == (1024, 60, 0)
    assert not any((train.microbatch, train.probe, optim.groups, optim.frozen))
    assert configuration.is_identity("finetune.head_layer")


def vit_by_dino():
    config = dino.get_config("cifar10_cpu")
    common.vit(config, "vit_micro", patch_size=4)
    return config


@pytest.mark.parametrize("config", [vit_by_dino(), rbm.get_config("cifar10_cpu")])
def test_backbone_is_read_from_checkpoints_without_statistics(config, monkeypatch, tmp_path):
    """Checkpoints do not store empty trees, so a state without statistics lacks them."""
    config.augment.size = 16

    class Reader(Checkpoints):
        def read_latest(self, select):
            return select(without_empty_branches(abstract())), 4, {}

    def abstract():
        method = components.make_method(config, 4, 8, devices=1)
        spec = {n: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for n, x in
                components.batch_spec(config).items()}  # fmt: skip
        params, extra = jax.eval_shape(method.init, jax.random.key(0), spec)
        return {"params": params, "extra": extra, "step": 4}

    monkeypatch.setattr("ssl_jax.pretrained.backbone.Checkpoints", Reader)
    net = backbone.backbone_from_run(config, tmp_path)
    assert jax.tree.leaves(net.weights.params)
    assert not jax.tree.leaves(net.weights.batch_stats)


def without_empty_branches(tree):
    if not isinstance(tree, dict):
        return tree
    branches = {name: without_empty_branches(branch) for name, branch in tree.items()}
    return {name: branch for name, branch in branches.items() if branch != {}}


def test_classifier_of_other_classes_is_not_scored():
    digits = sources.open_source("digits", data_dir="", split="test")
    for classes, told in ((tuple("0123456789"), True), (tuple("abcdefghij"), False)):
        subject = types.SimpleNamespace(classes=classes)
        context = Context(None, None, subject, digits, None, None)
        assert context.tells_classes == told
