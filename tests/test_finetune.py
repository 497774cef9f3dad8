"""Whole runs of pre-training, fine-tuning and distillation, and their errors."""

import json
import shutil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from test_train import SMALL, arrays, assert_same_run, losses, small, tiny_encoder

from configs import distillation
from ssl_jax import config as configuration
from ssl_jax import evaluate, finetune, methods, parallel, train
from ssl_jax.errors import BAD_CHECKPOINT, BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.jobs.stop import Stop
from ssl_jax.models.norm import BatchNorm
from ssl_jax.pretrained import classifier
from ssl_jax.rundir import workdir
from ssl_jax.training import command


def run(verb, config, path, encoder=tiny_encoder):
    """Runs a verb after its flags are parsed, without a report."""
    mesh = parallel.make_mesh(jax.devices()[:2])
    with (
        pytest.MonkeyPatch.context() as patch,
        workdir.open_workdir(path) as folder,
        Stop() as stop,
    ):
        patch.setattr(parallel, "make_mesh", lambda **_: mesh)
        patch.setattr("ssl_jax.report.page.write", lambda path: "skipped")
        patch.setattr("ssl_jax.training.preview.draw_views", lambda *args: None)
        patch.setattr("ssl_jax.models.get", encoder)
        command.check_config(config, folder, [])
        verb(config, folder, stop)


class Convolutions(nn.Module):
    """Depends on positions, unlike the tiny encoder, and compiles almost as fast."""

    width: int
    bn_group: int = 0
    bn_views: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        for i in (1, 2):
            x = nn.Conv(i * self.width, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(BatchNorm(group=self.bn_group, views=self.bn_views)(x, train))
        return x.reshape(len(x), -1)

    @classmethod
    def get(cls, name, *, width, dtype, **others):
        del name, others
        return cls(width=int(64 * width), dtype=dtype)


def finetuning_config(pretrained, **overrides):
    """Returns the config of `--pretrained=... --config.FIELD=...`, with "__" for the dot."""
    fields = {"train__steps": 6, "train__batch_size": 32} | overrides
    values = {name.replace("__", "."): value for name, value in fields.items()}
    return finetune.make_config(str(pretrained), values)


def student_config(teacher, **overrides):
    config = distillation.get_config("cifar10_cpu")
    fields = {name: value for name, value in SMALL.items() if not name.startswith("method.")}
    fields |= {
        "data.source": "digits",
        "augment.size": 12,
        "augment.flip": 0.0,
        "method.teacher": str(teacher),
    }
    fields |= {name.replace("__", "."): value for name, value in overrides.items()}
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrained") / "run"
    run(train.train, small(train__steps=2), path)
    return path


@pytest.fixture(scope="module")
def fine_tuned(pretrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("tuned") / "run"
    run(finetune.finetune, finetuning_config(pretrained, finetune__head_layer=1), path)
    return path


def copy_at_step_4(path, to):
    """Copies the run without its checkpoint of step 6."""
    shutil.copytree(path, to)
    shutil.rmtree(to / "checkpoints" / "6")
    return to


def test_fine_tuning_resumes_to_the_same_bits(pretrained, fine_tuned, tmp_path, capfd):
    again = copy_at_step_4(fine_tuned, tmp_path / "again")
    run(finetune.finetune, finetuning_config(pretrained, finetune__head_layer=1), again)
    assert "resumed at step 4 of 6" in capfd.readouterr().out
    assert_same_run(again, fine_tuned, 6)


def test_distillation_resumes_and_leaves_its_teacher_unchanged(fine_tuned, tmp_path):
    config = student_config(fine_tuned)
    run(train.train, config, tmp_path / "run")
    again = copy_at_step_4(tmp_path / "run", tmp_path / "again")
    run(train.train, config, again)
    assert_same_run(again, tmp_path / "run", 6)
    student, teacher = arrays(again, 6), arrays(fine_tuned, 6)
    places = {
        "['extra']['teacher']['params']": "['params']",
        "['extra']['teacher']['batch_stats']": "['extra']['batch_stats']",
    }
    for copy, source in places.items():
        copied = {n.removeprefix(copy): v for n, v in student.items() if n.startswith(copy)}
        original = {n.removeprefix(source): v for n, v in teacher.items() if n.startswith(source)}
        assert copied.keys() == original.keys() != set()
        for name, value in copied.items():
            np.testing.assert_array_equal(value, original[name], err_msg=name)
    optimizer = [name for name in student if name.startswith("['opt_state']")]
    assert optimizer
    assert not any("teacher" in name for name in optimizer)


def test_each_stage_passes_its_knowledge_on_to_a_smaller_student(tmp_path):
    """Trains all stages on digits."""
    config = small(model__width=0.25, train__steps=30, train__checkpoint_every=100)
    run(train.train, config, tmp_path / "pretrained", Convolutions.get)
    config = finetuning_config(
        tmp_path / "pretrained",
        finetune__head_layer=1, finetune__labels_per_class=40, data__eval_split="test",
        optim__name="adamw", optim__lr=0.01, optim__lr_rule="constant", train__steps=100,
        train__batch_size=64, train__log_every=50,
    )  # fmt: skip
    run(finetune.finetune, config, tmp_path / "tuned", Convolutions.get)
    numbers = json.loads((tmp_path / "tuned/eval/finetune.json").read_text())
    result = numbers["results"]["simclr"]
    assert (result["n_labels"], result["classes"], result["n_test"]) == (400, 10, 500)
    assert result["head_layer"] == 1
    protocol = numbers["protocol"]
    assert protocol["classifier"].startswith("linear, fine-tuned with the encoder and 1 of its")
    assert protocol["labels"] == "400 of train, 40 of each class, seed 0"
    assert result["accuracy"] > 0.8
    smaller = student_config(
        tmp_path / "tuned",
        model__width=0.125, data__eval_split="test", eval__labels_per_class=(), train__steps=100,
        train__checkpoint_every=100, train__log_every=50,
    )  # fmt: skip
    run(train.train, smaller, tmp_path / "student", Convolutions.get)
    student = json.loads((tmp_path / "student/eval/classifier.json").read_text())
    assert student["results"]["distillation"]["accuracy"] > 0.75
    assert losses(tmp_path / "student")[100] < losses(tmp_path / "student")[50]
    assert student["results"]["distillation"]["n_test"] == 500


def test_teacher_has_the_logits_of_the_fine_tuned_run(fine_tuned, capsys):
    """The oracle computes the logits in NumPy from arrays that Orbax reads."""
    with ocp.StandardCheckpointer() as reader:
        state = reader.restore(fine_tuned / "checkpoints" / "6")
    params, stats = state["params"], state["extra"]["batch_stats"]
    images = np.random.default_rng(0).random((5, 12, 12, 3), np.float32)
    variables = {"params": params["encoder"], "batch_stats": stats["encoder"]}
    x = np.asarray(tiny.Encoder().apply(variables, images, False))
    x = x @ np.asarray(params["head"]["dense0"]["kernel"])
    norm, running = jax.tree.map(np.asarray, (params["head"]["bn0"], stats["head"]["bn0"]))
    x = (x - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
    last = jax.tree.map(np.asarray, params["classifier"]["dense"])
    x = np.maximum(x, 0) @ last["kernel"] + last["bias"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_jax.models.get", tiny_encoder)
        teacher = classifier.load_teacher(str(fine_tuned), 12, jnp.float32)
        assert "warning" not in capsys.readouterr().out
        classifier.load_teacher(str(fine_tuned), 24, jnp.float32)
        assert (
            "trained on images of 12 px, but the student's views have 24 px"
            in capsys.readouterr().out
        )
    assert teacher.classes == tuple("0123456789")
    np.testing.assert_allclose(teacher.logits(teacher.weights, images), x, rtol=1e-4, atol=1e-5)


def test_fine_tuning_refuses_bad_configs_and_runs(pretrained, fine_tuned, tmp_path):
    with pytest.raises(Fault, match="fine-tuned already") as refused:
        finetuning_config(fine_tuned)
    assert refused.value.code == BAD_CONFIG
    for overrides, text, code in (
        ({"finetune__head_layer": 3}, "head_layer=3: the weights of simclr", BAD_CONFIG),
        ({"finetune__labels_per_class": 5000}, "5000 labels per class asked", BAD_DATA),
    ):
        with pytest.raises(Fault, match=text) as refused:
            run(finetune.finetune, finetuning_config(pretrained, **overrides), tmp_path / "run")
        assert refused.value.code == code
    config = finetuning_config(pretrained, finetune__labels_per_class=2)
    with pytest.raises(Fault, match="20 examples < batch"):
        run(finetune.finetune, config, tmp_path / "run")
    # The next attempt may use another batch size.
    assert not (tmp_path / "run" / "config.json").exists()
    (tmp_path / "empty").mkdir()
    shutil.copy(pretrained / "config.json", tmp_path / "empty")
    with pytest.raises(Fault, match="no checkpoint under") as refused:
        run(finetune.finetune, finetuning_config(tmp_path / "empty"), tmp_path / "run")
    assert refused.value.code == BAD_CHECKPOINT


def test_default_batch_is_at_most_the_number_of_labelled_images(pretrained):
    overrides = {"finetune.labels_per_class": 3}
    config = finetune.make_config(str(pretrained), overrides)
    assert config.train.batch_size == 64
    fitted, line = finetune.fit_batch(config.copy_and_resolve_references(), overrides)
    assert fitted.train.batch_size == 16  # 30 labels of 10 classes
    assert line == "30 labelled examples: train.batch_size=16"
    fitted, line = finetune.fit_batch(config, overrides | {"train.batch_size": 64})
    assert (fitted.train.batch_size, line) == (64, "")  # the user's value is refused later


def test_groups_of_batchnorm_that_do_not_divide_the_batch_become_one(pretrained):
    overrides = {"finetune.labels_per_class": 3}
    config = finetune.make_config(str(pretrained), overrides)
    config.model.bn_group = 32  # of pre-training: 30 labels make a batch of 16
    fitted, line = finetune.fit_batch(config.copy_and_resolve_references(), overrides)
    assert (fitted.train.batch_size, fitted.model.bn_group) == (16, 0)
    assert line.endswith("; model.bn_group=0, because 32 does not divide train.batch_size")
    config.model.bn_group = 8
    fitted, line = finetune.fit_batch(config, overrides)
    assert (fitted.model.bn_group, line) == (8, "30 labelled examples: train.batch_size=16")


def test_method_without_an_encoder_is_refused(pretrained, monkeypatch):
    def method(*_, **__):
        return methods.Method(*[None] * 4, modules=lambda params, extra: ({"stack": {}}, {}))

    monkeypatch.setattr("ssl_jax.components.make_method", method)
    with pytest.raises(Fault, match="simclr has no encoder, only: stack"):
        classifier.pretrained_weights(pretrained)


def test_evaluating_a_fine_tuned_run_names_its_results(fine_tuned):
    config = configuration.load(fine_tuned)
    assert config.finetune.head_layer == 1
    with pytest.raises(Fault, match=r"eval/finetune\.json"):
        evaluate.config_of_run(fine_tuned)


def test_missing_and_unsuitable_teachers_are_refused(pretrained, tmp_path):
    for folder, text, code in (
        ("", "no teacher at ''", MISSING_INPUT),
        (tmp_path / "nowhere", "nowhere", MISSING_INPUT),
        (pretrained, "has no classifier", BAD_CONFIG),
    ):
        with pytest.raises(Fault, match=text) as refused:
            run(train.train, student_config(folder), tmp_path / "run")
        assert refused.value.code == code
