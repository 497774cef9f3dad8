"""For a misspelt field, a field of the same meaning or of similar letters is suggested."""

import pytest

from configs import moco_v2, simclr
from ssl_jax import config as configuration
from ssl_jax.config import method_fields, suggestions, valid

FIELDS = list(configuration.flatten(moco_v2.get_config("cifar10_cpu")))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        # by meaning
        ("learning_rate", "optim.lr"),
        ("optim.learning_rate", "optim.lr"),
        ("wd", "optim.weight_decay"),
        ("batch", "train.batch_size"),
        ("bs", "train.batch_size"),
        ("tau", "method.temperature"),
        ("epochs", "train.epochs"),
        ("dataset", "data.source"),
        ("arch", "model.name"),
        ("image_size", "augment.size"),
        ("warmup", "optim.warmup_epochs"),
        # in another section
        ("lr", "optim.lr"),
        ("train.temperature", "method.temperature"),
        ("seed", "train.seed"),
        # by letters
        ("method.tempreature", "method.temperature"),
        ("temprature", "method.temperature"),
        ("optim.lrr", "optim.lr"),
        ("optimizer.lrr", "optim.lr"),
        ("learnig_rate", "optim.lr"),
        ("train.batchsize", "train.batch_size"),
        ("method.queuesize", "method.queue_size"),
    ],
)
def test_the_meant_field_is_suggested(name, field):
    assert configuration.suggest(name, FIELDS) == f"did you mean {field!r}?"


def test_several_fields_and_no_similar_field():
    both = "did you mean 'train.batch_size' or 'eval.batch_size'?"
    assert configuration.suggest("batch_size", FIELDS) == both
    assert configuration.suggest("qqq", FIELDS).startswith("choose from: augment, data, eval,")
    assert "checkpoint" not in configuration.suggest("save_dir", FIELDS)  # not that of save_freq
    assert configuration.suggest("train", FIELDS).startswith("choose from: train.batch_size,")
    assert configuration.suggest("parallel.qqq", FIELDS) == "choose from: parallel.fsdp"
    assert "queue" not in configuration.suggest("queue", list(simclr.METHOD))


def test_other_names_lead_to_fields_that_exist():
    table = {row.name for row in configuration.describe()}
    of_methods = [name for method in valid.METHODS for name in method_fields.meanings(method)]
    assert set(suggestions._FIELDS.values()) <= table | {f"method.{name}" for name in of_methods}
    trained = {name.partition(".")[2] for name in table if not name.startswith("finetune.")}
    assert not set(suggestions._FIELDS) & trained


def test_hyperparameters_of_every_method_have_a_meaning():
    for method in valid.METHODS:
        meanings = method_fields.meanings(method)
        if method not in ("siamese",):
            assert meanings, method
        assert all(text.endswith(".") for text in meanings.values()), meanings
    assert method_fields.meanings("moco")["queue_size"] == (
        "Number of keys in the queue, K; a multiple of the batch size."
    )
    assert method_fields.meanings("outside:make") == {}
