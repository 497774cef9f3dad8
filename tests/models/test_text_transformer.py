"""The text transformer against its equations in NumPy, and what its masks hide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ssl_jax.models.text import TextTransformer

FIELDS = {"vocabulary": 40, "width": 12, "depth": 2, "heads": 3, "output_dim": 5}
END = 39
ROWS = np.int32([[1, 7, 8, END, -1, -1], [1, 2, 3, 4, 5, END], [1, END, -1, -1, -1, -1]])


@pytest.fixture(scope="module")
def params():
    with jax.enable_x64(True):
        model = TextTransformer(**FIELDS, dtype=jnp.float64)
        tree = model.init(jax.random.key(0), jnp.asarray(ROWS))["params"]
        # Scales and biases at their initial values would hide their absence.
        rng = np.random.default_rng(1)
        return jax.tree.map(lambda x: np.asarray(x, float) + 0.1 * rng.normal(size=x.shape), tree)


def _apply(params, rows, **fields):
    with jax.enable_x64(True):
        model = TextTransformer(**FIELDS | fields, dtype=jnp.float64)
        return np.asarray(model.apply({"params": params}, jnp.asarray(rows)))


def _norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def _dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def _block(x, p, causal):
    t, f = x.shape
    y, size = _norm(x, p["norm1"]), f // FIELDS["heads"]
    heads = []
    for h in range(FIELDS["heads"]):
        q, k, v = (_dense(y, p["attn"][name])[:, h * size : (h + 1) * size] for name in "qkv")
        logits = q @ k.T / np.sqrt(size)
        for i in range(t):
            seen = i + 1 if causal else t
            logits[i, seen:] = -np.inf
        heads.append(special.softmax(logits, axis=1) @ v)
    x = x + _dense(np.concatenate(heads, 1), p["attn"]["proj"])
    hidden = _dense(_norm(x, p["norm2"]), p["mlp"]["fc1"])
    hidden = hidden * (1 + special.erf(hidden / np.sqrt(2))) / 2
    return x + _dense(hidden, p["mlp"]["fc2"])


def _written_out(params, row, *, causal, pool):
    words = [token for token in row if token >= 0]
    filled = words + [words[-1]] * (len(row) - len(words))
    x = params["token_embed"][filled] + params["pos_embed"]
    for i in range(FIELDS["depth"]):
        x = _block(x, params[f"blocks_{i}"], causal)
    x = _norm(x, params["norm"])[-1 if pool == "last" else len(words) - 1]
    return x @ params["proj"]["kernel"]


@pytest.mark.parametrize(("causal", "pool"), [(True, "end"), (False, "last"), (True, "last")])
def test_equals_the_equations(params, causal, pool):
    got = _apply(params, ROWS, causal=causal, pool=pool)
    want = [_written_out(params, list(row), causal=causal, pool=pool) for row in ROWS]
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_causal_attention_sees_nothing_after_the_end(params):
    other = ROWS.copy()
    other[0, 4:] = 17  # END is no longer the last token, so take the prefix
    prefix = _apply(params | {"pos_embed": params["pos_embed"][:4]}, ROWS[:1, :4])
    np.testing.assert_allclose(_apply(params, ROWS[:1]), prefix, rtol=1e-12)
    assert np.abs(_apply(params, other[:1]) - prefix).max() > 1e-3


def test_a_row_does_not_depend_on_the_others(params):
    np.testing.assert_allclose(_apply(params, ROWS[1:2])[0], _apply(params, ROWS)[1], rtol=1e-12)


def test_unknown_pool_and_heads_raise():
    for fields, message in (({"pool": "first"}, "text_pool"), ({"heads": 5}, "5 heads")):
        with pytest.raises(ValueError, match=message):
            TextTransformer(**FIELDS | fields).init(jax.random.key(0), jnp.asarray(ROWS))
