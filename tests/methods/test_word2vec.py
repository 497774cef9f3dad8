"""word2vec against loops over its pairs, as `word2vec.c` has them, in NumPy and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ssl_jax import methods
from ssl_jax.losses import word_pairs
from ssl_jax.methods import word2vec
from ssl_jax.models import huffman
from ssl_jax.models.embedding import Embedding

WIDTH, WINDOW, NEGATIVES, SHARED, LENGTH = 4, 3, 5, 6, 11
COUNTS = np.array([9, 7, 5, 4, 3, 2, 1])
KINDS = [(one, loss) for one in word2vec.ARCHITECTURES for loss in word2vec.LOSSES]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    """Passages of 11 words have three blocks, the last one not full."""
    monkeypatch.setattr(word2vec, "BLOCKS", {"negatives": 4, "hierarchy": 5})


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def make(architecture, loss, *, window=WINDOW, dtype=jnp.float64, **fields):
    words = jax.ShapeDtypeStruct((LENGTH,), jnp.int32)
    facts = {"words": np.arange(len(COUNTS)).astype(str), "counts": COUNTS}
    run = methods.Run(
        {"tokens": words, "window": words}, 10, 4, 100, facts=facts, symbols={"window": window + 1}
    )
    fields = {"shared_negatives": SHARED, "negatives": NEGATIVES} | fields
    return word2vec.make(
        Embedding(WIDTH, dtype=dtype), run, architecture=architecture, loss=loss, **fields
    )


def batch():
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, len(COUNTS), (4, LENGTH)).astype(np.int32)
    tokens[1, 6:], tokens[2, 1:], tokens[3] = -1, -1, -1  # shorter, a single word, empty
    window = rng.integers(1, WINDOW + 1, tokens.shape).astype(np.int32)
    return {"tokens": tokens, "window": window, "index": np.arange(4, dtype=np.int32)}


def state(method, one):
    params, extra = method.init(jax.random.key(0), one)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params), extra


def ours(method, params, extra, one):
    key = jax.random.key(3)

    def loss(params):
        outputs, _ = method.encode(params, extra, one, key)
        total, _ = method.objective(params, extra, outputs, key, 0)
        return total, outputs

    (total, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return float(total), jax.tree.map(np.asarray, (gradient, outputs))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def expected(params, one, outputs, architecture, loss):
    """Loss, gradients, and numbers of products of each vector, pair by pair."""
    inputs, out = (np.asarray(params[name]["table"]) for name in ("encoder", "output"))
    size = word2vec.BLOCKS[loss]
    paths = huffman.paths(COUNTS)
    total = 0.0
    gradient = {"encoder": np.zeros_like(inputs), "output": np.zeros_like(out)}
    terms = {"encoder": np.zeros(len(inputs)), "output": np.zeros(len(out))}
    for row, (tokens, window) in enumerate(zip(one["tokens"], one["window"], strict=True)):
        for i, centre in enumerate(tokens):
            near = [
                tokens[j]
                for j in range(max(0, i - window[i]), min(LENGTH, i + window[i] + 1))
                if j != i and tokens[j] >= 0
            ]
            if centre < 0 or not near:
                continue
            if loss == "hierarchy":
                path = paths[centre][paths[centre] >= 0]
                targets = [(node >> 1, 1 - (node & 1), 1.0) for node in path]
            else:
                drawn = outputs["negative"][row, i // size]
                share = NEGATIVES / SHARED
                targets = [(centre, 1, 1.0)]
                targets += [(word, 0, share) for word in drawn if word != centre]
            groups = [[word] for word in near] if architecture == "skip_gram" else [near]
            for group in groups:
                hidden = inputs[group].mean(0)
                error = np.zeros(WIDTH)
                for target, label, weight in targets:
                    logit = hidden @ out[target]
                    total += weight * np.log1p(np.exp(-logit if label else logit))
                    g = weight * (sigmoid(logit) - label)
                    error += g * out[target]
                    gradient["output"][target] += g * hidden
                    terms["output"][target] += weight
                for word in group:  # word2vec.c adds the whole error to every context
                    gradient["encoder"][word] += error
                    terms["encoder"][word] += sum(weight for _, _, weight in targets)
    return total, gradient, terms


@pytest.mark.parametrize("most", [1e9, 7.0])
@pytest.mark.parametrize(("architecture", "loss"), KINDS)
def test_loss_and_gradient_equal_loops_over_pairs(architecture, loss, most):
    method, one = make(architecture, loss, max_terms=most), batch()
    params, extra = state(method, one)
    total, (gradient, outputs) = ours(method, params, extra, one)
    value, sums, terms = expected(params, one, outputs, architecture, loss)
    np.testing.assert_allclose(total, value, rtol=1e-10)
    for name, table in sums.items():
        scale = np.minimum(1, most / np.maximum(terms[name], 1e-9))
        np.testing.assert_allclose(
            gradient[name]["table"], table * scale[:, None], rtol=1e-9, atol=1e-11
        )
    assert all(one.max() > 7 for one in terms.values())  # so the smaller limit acts


def test_a_window_longer_than_a_passage_costs_nothing(monkeypatch):
    largest = []
    blocks = word_pairs.blocks

    def spy(*args, **options):
        largest.append(options["largest"])
        return blocks(*args, **options)

    monkeypatch.setattr(word_pairs, "blocks", spy)
    one = batch()
    one["window"][:] = 50
    totals = []
    for window in (50, LENGTH - 1):
        method = make("cbow", "negatives", window=window)
        totals.append(ours(method, *state(method, one), one)[0])
    assert largest == [LENGTH - 1] * 2
    assert totals[0] == totals[1]


def test_a_negative_that_is_the_centre_counts_nothing():
    method, one = make("skip_gram", "negatives"), batch()
    params, extra = state(method, one)
    extra = {"noise": jnp.asarray([2**32 - 1] * len(COUNTS), jnp.uint32)}  # every negative is 0
    one["tokens"][:] = np.where(one["tokens"] >= 0, 0, -1)
    _, (_, outputs) = ours(method, params, extra, one)
    assert (outputs["negative"] == 0).all()
    total, _ = ours(method, params, extra, one)
    pairs = expected(params, one, outputs, "skip_gram", "negatives")[0]
    np.testing.assert_allclose(total, pairs, rtol=1e-12)  # the loops skip such negatives


def test_negatives_have_the_distribution_of_counts_to_the_power_of_three_quarters():
    thresholds = jnp.asarray(word2vec.noise_thresholds(COUNTS))
    bits = jax.random.bits(jax.random.key(0), (20_000,), jnp.uint32)
    drawn = np.bincount(word2vec.noise_words(thresholds, bits), minlength=len(COUNTS))
    share = COUNTS**0.75 / (COUNTS**0.75).sum()
    assert stats.chisquare(drawn, share * 20_000).pvalue > 1e-4


def test_rare_words_of_a_large_vocabulary_can_be_drawn():
    counts = np.maximum(10**9 // np.arange(1, 10**6 + 1), 5)
    thresholds = word2vec.noise_thresholds(counts).astype(np.int64)
    widths = np.diff(thresholds, prepend=0)
    exact = counts**0.75 / (counts**0.75).sum() * 2**32
    np.testing.assert_allclose(widths, exact, atol=2)
    assert widths.min() > 100


def test_negatives_depend_on_the_example_alone():
    method, one = make("skip_gram", "negatives"), batch()
    params, extra = state(method, one)
    whole = method.encode(params, extra, one, jax.random.key(7))[0]["negative"]
    part = {name: value[2:] for name, value in one.items()}
    np.testing.assert_array_equal(
        method.encode(params, extra, part, jax.random.key(7))[0]["negative"], whole[2:]
    )


def test_a_vocabulary_smaller_than_the_negatives_learns():
    facts = {"words": np.array(["a", "b"]), "counts": np.array([3, 2])}
    words = jax.ShapeDtypeStruct((LENGTH,), jnp.int32)
    run = methods.Run(
        {"tokens": words, "window": words}, 10, 4, 100, facts=facts, symbols={"window": WINDOW + 1}
    )
    method = word2vec.make(Embedding(WIDTH), run, shared_negatives=32)
    one = batch()
    one["tokens"] = np.minimum(one["tokens"], 1)
    params, extra = state(method, one)
    total, (gradient, _) = ours(method, params, extra, one)
    assert np.isfinite(total)
    assert np.abs(gradient["output"]["table"][:2]).max() > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "glove"}, "choose one of skip_gram, cbow"),
        ({"loss": "softmax"}, "choose one of negatives, hierarchy"),
        ({"negatives": 0}, "at least 1"),
        ({"max_terms": float("nan")}, "max_terms above 0"),
        ({"dtype": jnp.bfloat16}, "model.dtype='float32'"),
    ],
)
def test_bad_hyperparameters_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**{"architecture": "cbow", "loss": "negatives"} | fields)


def test_images_are_refused():
    run = methods.Run({"views": jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)}, 1, 4, 8)
    with pytest.raises(ValueError, match=r"data\.source='text'"):
        word2vec.make(Embedding(), run)
