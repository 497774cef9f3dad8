"""The checks for methods of other projects: the guide's method passes, broken methods fail."""

import copy
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import testing

GUIDE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "add_a_method.md"


def make_dcl():
    """The method of the guide."""
    blocks = re.findall(r"```py\n(.*?)```", GUIDE.read_text(), re.S)
    (code,) = [block for block in blocks if "def make_dcl" in block]
    names = {}
    exec(compile(code, GUIDE.name, "exec"), names)
    return names["make_dcl"]


def changed(**functions):
    """Returns a maker of the guide's method with some functions replaced: name -> wrapper."""
    plain = make_dcl()

    def make(encoder, run, **fields):
        method = plain(encoder, run, **fields)
        wrapped = {
            name: functools.partial(wrapper, getattr(method, name))
            for name, wrapper in functions.items()
        }
        return method._replace(**wrapped)

    return make


def trial(make):
    return testing.Trial(
        make, testing.Encoder(dtype=jnp.float64), testing.seen(), {"hidden_dim": 8, "output_dim": 4}
    )


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def good():
    """A trial of the guide's method, whose results all tests share."""
    with jax.enable_x64(True):
        made = trial(make_dcl())
        assert made.whole
    return made


def broken(good, **attributes):
    """Returns a copy of a trial with other attributes, such as the state after all steps."""
    copied = copy.copy(good)
    vars(copied).update(attributes)
    return copied


def test_method_of_the_guide_keeps_the_contract(good, monkeypatch):
    monkeypatch.setattr(testing, "Trial", lambda *arguments: good)
    testing.check_method(make_dcl(), hidden_dim=8, output_dim=4)


def test_noise_that_depends_on_the_batch_fails():
    def encode(plain, params, extra, batch, key):
        noise = 0.1 * jax.random.normal(key, batch["views"].shape)
        return plain(params, extra, batch | {"views": batch["views"] + noise}, key)

    with pytest.raises(AssertionError, match=r"micro-batches on 8 devices .* differ"):
        testing.check_micro_batches(trial(changed(encode=encode)))


def test_parameter_that_stands_still_and_number_that_overflows_fail(good):
    state, metrics = good.whole
    still = broken(good, first=good.whole)
    with pytest.raises(AssertionError, match=r"BatchNorm_0.* did not move"):
        testing.check_training(still)
    with pytest.raises(AssertionError, match=r"'loss'.* is not finite"):
        testing.check_training(broken(good, whole=(state, metrics | {"loss": np.float64("nan")})))
    narrow = jax.tree.map(np.float32, state.params)
    with pytest.raises(AssertionError, match="changes the state's shapes or dtypes"):
        testing.check_training(broken(good, whole=(state.replace(params=narrow), metrics)))


def test_label_that_reaches_the_method_fails(good):
    state, metrics = good.whole
    moved = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
    leaky = broken(good, train=lambda *_, **options: (moved, metrics))
    with pytest.raises(AssertionError, match="labels change params"):
        testing.check_labels(leaky)


def test_features_that_depend_on_other_rows_or_are_no_rows_fail(good):
    features = good.method.features

    def centred(*arguments):
        rows = features(*arguments)
        return rows - rows.mean(0, keepdims=True)

    def check(function):
        testing.check_features(broken(good, method=good.method._replace(features=function)))

    with pytest.raises(AssertionError, match="features depend on other rows"):
        check(centred)
    with pytest.raises(AssertionError, match=r"not \[b, f\]"):
        check(lambda *arguments: features(*arguments)[:, 0])
    with pytest.raises(AssertionError, match="not float32"):
        check(lambda *arguments: features(*arguments).astype(jnp.float64))
