"""Runs that start from weights: the parts that take them, and weights that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_train import arrays, run, small

from configs import byol, dino, distillation, moco_v2, rbm, simclr_v2
from ssl_jax import build, components
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.methods import Method
from ssl_jax.methods.distillation import Teacher
from ssl_jax.pretrained import initial_weights
from ssl_jax.weights import Weights

SIZE = 16


def weights(encoder, seed=7):
    """Returns random weights of this encoder."""
    shapes = jax.eval_shape(
        lambda x: encoder.init(jax.random.key(0), x, True), jnp.zeros((2, SIZE, SIZE, 3))
    )
    rng = np.random.default_rng(seed)
    tree = jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)
    return Weights({}, tree["params"], tree.get("batch_stats", {}))


def initial_state(config, drawn=None):
    """Returns (params, extra) at step 0, and the weights from which they start."""
    config.augment.size = SIZE
    config.augment.local = {"views": 2, "size": 8} if config.augment.local else {}
    with pytest.MonkeyPatch.context() as patch:
        encoder = tiny.encoder(config.model)
        patch.setattr("ssl_jax.models.get", lambda name, **fields: encoder)
        method = components.make_method(
            config, 4, 8 * config.train.batch_size, devices=1, teacher=build.load_teacher(config)
        )
    drawn = drawn or weights(encoder)
    method = initial_weights.method_from(method, drawn, "somewhere")
    spec = {n: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
            for n, x in components.batch_spec(config).items()}  # fmt: skip
    zeros = {name: jnp.zeros(x.shape, x.dtype) for name, x in spec.items()}
    return *jax.jit(method.init)(jax.random.key(0), zeros), drawn


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.leaves(b)


def test_target_network_starts_from_the_weights():
    params, extra, drawn = initial_state(byol.get_config("cifar10_cpu"))
    assert_equal(params["encoder"], drawn.params)
    assert_equal(extra["target"]["encoder"], drawn.params)
    for side in ("online", "target"):
        assert_equal(extra["batch_stats"][side]["encoder"], drawn.batch_stats)


@pytest.mark.parametrize("module", [moco_v2, dino])
def test_momentum_encoder_starts_from_the_weights(module):
    params, extra, drawn = initial_state(module.get_config("cifar10_cpu"))
    assert_equal(params["encoder"], drawn.params)
    assert_equal(extra["target"]["encoder"], drawn.params)


def test_encoder_of_the_memory_starts_from_the_weights():
    config = simclr_v2.get_config("cifar10_cpu")
    config.method.memory_size = config.train.batch_size
    params, extra, drawn = initial_state(config)
    assert_equal(params["encoder"], drawn.params)
    assert_equal(extra["target"]["encoder"], drawn.params)
    assert_equal(extra["target_stats"]["encoder"], drawn.batch_stats)


def test_teacher_of_the_same_shapes_keeps_its_weights():
    """The student starts from other weights than the teacher's."""
    config = distillation.get_config("cifar10_cpu")
    encoder = tiny.encoder(config.model)
    taught = weights(encoder, seed=8)
    teacher_weights = {
        "params": {"encoder": taught.params},
        "batch_stats": {"encoder": taught.batch_stats},
    }
    teacher = Teacher(teacher_weights, lambda w, x: jnp.zeros((len(x), 3)), ("a", "b", "c"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_jax.pretrained.classifier.load_teacher", lambda *args: teacher)
        params, extra, drawn = initial_state(config)
    assert_equal(params["encoder"], drawn.params)
    assert_equal(extra["teacher"], teacher_weights)


def test_weights_of_other_shapes_are_refused():
    config = byol.get_config("cifar10_cpu")
    other = Weights({}, {"kernel": np.zeros((3, 3))}, {})
    with pytest.raises(Fault, match="no encoder of these shapes"):
        initial_state(config, other)


def test_method_whose_evaluated_encoder_differs_is_refused():
    with pytest.raises(Fault, match="no encoder of these shapes"):
        initial_state(
            rbm.get_config("cifar10_cpu")
        )  # the evaluated stack of trained machines starts from random weights


def test_other_model_is_refused_with_the_flags_that_fit():
    ours = {"name": "resnet50", "mean": (0.0, 0.0, 0.0), "width": 1, "zero_gamma": True}
    theirs = {"name": "resnet50", "mean": (0.5, 0.5, 0.5), "width": 1.0, "zero_gamma": False}
    with pytest.raises(Fault) as refused:
        initial_weights.check_model(ours, theirs, "FILE")
    assert refused.value.code == BAD_CONFIG
    assert "--config.model.mean='(0.5, 0.5, 0.5)'" in str(refused.value)
    assert "width" not in str(refused.value)
    assert "zero_gamma" not in str(refused.value)
    initial_weights.check_model(theirs | {"init": "FILE", "dtype": "auto"}, theirs, "FILE")


def test_options_of_the_weights_may_be_missing_in_the_config():
    ours = {"name": "vit_small", "patch_size": 16, "pool": "token", "positions": "sincos"}
    initial_weights.check_model(ours, ours | {"mlp_ratio": 4}, "FILE")
    with pytest.raises(Fault, match=r"mlp_ratio=3"):
        initial_weights.check_model(ours, ours | {"mlp_ratio": 3}, "FILE")
    with pytest.raises(Fault, match=r"name=resnet18$"):
        initial_weights.check_model(ours, {"name": "resnet18", "stem": "cifar"}, "FILE")


def test_method_without_initial_weights_is_unchanged():
    method = Method(*[None] * 4)
    config = small()
    assert build.with_initial_weights(config, method) is method


def test_run_starts_from_the_encoder_of_another_run(tmp_path):
    run(small(train__steps=2), tmp_path / "first")
    config = small(train__steps=1, train__checkpoint_every=1, optim__lr=0.0)
    config.optim.weight_decay = 0.0
    config.model.init = str(tmp_path / "first")
    run(config, tmp_path / "second")
    before, after = arrays(tmp_path / "first", 2), arrays(tmp_path / "second", 1)
    encoder = [name for name in after if name.startswith("['params']['encoder']")]
    assert encoder
    for name in encoder:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    head = "['params']['head']['dense0']['kernel']"
    assert np.abs(after[head] - before[head]).max() > 0
