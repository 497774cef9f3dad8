"""The masks, labels and the printed table, on a real module's names."""

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
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_weights_are_what_has_more_than_one_axis(shapes):
    assert parameters.is_weight(shapes) == {
        "Conv_0": {"kernel": True},
        "BatchNorm_0": {"scale": False, "bias": False},
        "Dense_0": {"kernel": True, "bias": False},
    }


def test_labels():
    found = parameters.labels(TREE, {"predictor"}, ("encoder/patch_embed",))
    assert found == {
        "encoder": {
            "patch_embed": {"kernel": parameters.FROZEN, "bias": parameters.FROZEN},
            "patch_embed_norm": {"scale": parameters.MAIN},  # a longer name is another module
        },
        "predictor": {"dense0": {"kernel": "predictor"}},
    }
    one = parameters.labels(TREE, {"predictor"}, ("predictor/dense0/kernel",))
    assert one["predictor"]["dense0"]["kernel"] == parameters.FROZEN


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("encoder/patchembed", "near it are: encoder/patch_embed, "),
        ("patch_embed", "near it are: encoder/patch_embed"),
        ("encoder/patch_embed/", "near it are: encoder/patch_embed, "),
        ("xyz", "the top level has: encoder, predictor$"),
    ],
)
def test_a_frozen_path_that_names_nothing(path, says):
    with pytest.raises(ValueError, match=f"frozen: no parameter under {path!r}; .*{says}"):
        parameters.labels(TREE, frozen=(path,))


def test_a_group_is_named_at_the_top():
    with pytest.raises(ValueError, match="under 'dense0'; the top level has: encoder, predictor"):
        parameters.labels(TREE, ("predictor", "dense0"))


def test_table(shapes):
    text = parameters.table(shapes, {"name": "lars", "weight_decay": 1e-6})
    rows = cells(text)
    assert rows["parameter"] == ["shape", "size", "decayed", "adapted"]
    assert rows["Conv_0/kernel"] == ["3x3x3x8", "216", "yes", "yes"]
    assert rows["BatchNorm_0/scale"] == ["8", "8", "-", "-"]
    assert rows["Dense_0/bias"] == ["5", "5", "-", "-"]
    assert rows["total"] == ["(5)", str(CONV + BN + DENSE), str(CONV + 40), str(CONV + 40)]
    assert len({len(line) for line in text.splitlines()}) == 1


@pytest.mark.parametrize(
    ("main", "decayed", "adapted"),
    [
        ({"name": "sgd", "weight_decay": 1e-4}, "256", "0"),
        ({"name": "lars", "weight_decay": 0.0}, "0", "256"),
        ({"name": "adamw", "weight_decay": 0.0, "weight_decay_end": None}, "0", "0"),
        ({"name": "adamw", "weight_decay": 0.0, "weight_decay_end": 0.4}, "256", "0"),
    ],
)
def test_table_says_what_an_optimizer_does_not_do(shapes, main, decayed, adapted):
    assert cells(parameters.table(shapes, main))["total"][-2:] == [decayed, adapted]


def test_table_of_groups_and_frozen_parameters(shapes):
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
