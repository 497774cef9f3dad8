"""Masks, labels and the printed table, on the parameter names of a Flax module."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ssl_jax.optim import parameters


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), use_bias=False)(x))
        return nn.Dense(5)(x.mean((1, 2)))


CONV, BN, DENSE = 3 * 3 * 3 * 8, 2 * 8, 8 * 5 + 5
TREE = {
    "encoder": {"patch_embed": {"kernel": 1, "bias": 2}, "patch_embed_norm": {"scale": 3}},
    "predictor": {"dense0": {"kernel": 4}},
}


@pytest.fixture(scope="module")
def shapes():
    net = jax.eval_shape(lambda: Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    return net["params"]


def cells(text):
    """Returns {first cell: the other cells} of each line of a table."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_is_weight_selects_parameters_with_more_than_one_axis(shapes):
    assert parameters.is_weight(shapes) == {
        "Conv_0": {"kernel": True},
        "BatchNorm_0": {"scale": False, "bias": False},
        "Dense_0": {"kernel": True, "bias": False},
    }


def test_labels_mark_frozen_grouped_and_main_parameters():
    labels = parameters.labels(TREE, {"predictor"}, ("encoder/patch_embed",))
    assert labels == {
        "encoder": {
            "patch_embed": {"kernel": parameters.FROZEN, "bias": parameters.FROZEN},
            "patch_embed_norm": {"scale": parameters.MAIN},  # a longer name is another module
        },
        "predictor": {"dense0": {"kernel": "predictor"}},
    }
    labels = parameters.labels(TREE, {"predictor"}, ("predictor/dense0/kernel",))
    assert labels["predictor"]["dense0"]["kernel"] == parameters.FROZEN


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("encoder/patchembed", "similar paths: encoder/patch_embed, "),
        ("patch_embed", "similar paths: encoder/patch_embed"),
        ("encoder/patch_embed/", "similar paths: encoder/patch_embed, "),
        ("xyz", "the top level has: encoder, predictor$"),
    ],
)
def test_frozen_path_without_parameters_is_refused_with_a_hint(path, hint):
    with pytest.raises(ValueError, match=f"frozen: no parameter under {path!r}; .*{hint}"):
        parameters.labels(TREE, frozen=(path,))


def test_group_below_the_top_level_is_refused():
    with pytest.raises(ValueError, match="under 'dense0'; the top level has: encoder, predictor"):
        parameters.labels(TREE, ("predictor", "dense0"))


def test_table_marks_decayed_and_adapted_parameters(shapes):
    text = parameters.table(shapes, {"name": "lars", "weight_decay": 1e-6})
    rows = cells(text)
    assert rows["parameter"] == ["shape", "size", "decayed", "adapted"]
    assert rows["Conv_0/kernel"] == ["3x3x3x8", "216", "yes", "yes"]
    assert rows["BatchNorm_0/scale"] == ["8", "8", "-", "-"]
    assert rows["Dense_0/bias"] == ["5", "5", "-", "-"]
    assert rows["total"] == ["(5)", str(CONV + BN + DENSE), str(CONV + 40), str(CONV + 40)]
    assert len({len(line) for line in text.splitlines()}) == 1


def test_table_marks_all_parameters_if_all_are_decayed_or_adapted(shapes):
    main = {"name": "lars", "weight_decay": 0.1, "decay_all": True, "adapt_all": True}
    groups = {"Dense_0": {"adapt_all": False}, "Conv_0": {"decay_all": False}}
    rows = cells(parameters.table(shapes, main, groups, ("BatchNorm_0/bias",)))
    assert rows["BatchNorm_0/scale"][2:] == ["yes", "yes", "lars"]
    assert rows["BatchNorm_0/bias"][2:] == ["-", "-", "frozen"]
    assert rows["Dense_0/bias"][2:] == ["yes", "-", "lars"]
    assert rows["Conv_0/kernel"][2:] == ["yes", "yes", "lars"]
    # AdamW adapts nothing, and without decay nothing is decayed.
    nothing = cells(parameters.table(shapes, main | {"name": "adamw", "weight_decay": 0.0}))
    assert nothing["total"][-2:] == ["0", "0"]


@pytest.mark.parametrize(
    ("main", "decayed", "adapted"),
    [
        ({"name": "sgd", "weight_decay": 1e-4}, "256", "0"),
        ({"name": "lars", "weight_decay": 0.0}, "0", "256"),
        ({"name": "adamw", "weight_decay": 0.0, "weight_decay_end": None}, "0", "0"),
        ({"name": "adamw", "weight_decay": 0.0, "weight_decay_end": 0.4}, "256", "0"),
    ],
)
def test_table_totals_follow_the_optimizer_and_its_decay(shapes, main, decayed, adapted):
    assert cells(parameters.table(shapes, main))["total"][-2:] == [decayed, adapted]


def test_table_names_optimizers_of_groups_and_frozen_parameters(shapes):
    groups = {"Dense_0": {"name": "adamw", "weight_decay": 0.0}}
    main = {"name": "lars", "weight_decay": 0.1}
    text = parameters.table(shapes, main, groups, ("BatchNorm_0", "Dense_0/bias"))
    rows = cells(text)
    assert rows["Conv_0/kernel"][2:] == ["yes", "yes", "lars"]
    assert rows["Dense_0/kernel"][2:] == ["-", "-", "adamw"]
    assert rows["Dense_0/bias"][2:] == ["-", "-", "frozen"]
    assert rows["BatchNorm_0/scale"][2:] == ["-", "-", "frozen"]
    assert rows["total"][1:] == [
        str(CONV + BN + DENSE),
        str(CONV),
        str(CONV),
        str(BN + 5),
        "frozen",
    ]
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "optimizer" in parameters.table(shapes, main, groups)
    frozen_kernel = cells(parameters.table(shapes, main, frozen=("Conv_0",)))["Conv_0/kernel"]
    assert frozen_kernel[2:] == ["-", "-", "frozen"]
