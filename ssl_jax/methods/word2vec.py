"""word2vec: word vectors from the words around each word (Mikolov et al. 2013)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.losses import word_pairs
from ssl_jax.losses.word_pairs import Blocks, with_scaled_gradient
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._keys import example_keys
from ssl_jax.models import huffman
from ssl_jax.models.embedding import TABLE, Embedding, initial_table
from ssl_jax.parallel import table

ARCHITECTURES, LOSSES = ("skip_gram", "cbow"), ("negatives", "hierarchy")
BLOCKS = {"negatives": 32, "hierarchy": 8}  # centres whose products are computed together
EXPONENT = 0.75  # of the counts, in the distribution of negatives


def make(
    encoder: Embedding,
    run: Run,
    *,
    architecture: str = "skip_gram",
    loss: str = "negatives",
    negatives: int = 5,
    shared_negatives: int = 64,
    max_terms: float = 256.0,
) -> Method:
    """word2vec (arXiv 1301.3781 and 1310.4546): skip-gram and CBOW, as `word2vec.c`.

    A centre word is predicted from each word in its window (skip-gram) or from their mean (CBOW),
    by negative sampling or by the branches of a Huffman tree. Each word has an input vector, which
    is its feature, and output vectors. Input vectors start uniform in ±0.5 / width, output vectors
    at 0. The loss is the sum over all pairs of the batch, so that the rate of "plain" descent is
    that of `word2vec.c`.

    Two things differ from `word2vec.c` because a batch is one update here:

    * The pairs of 32 neighbouring centres share `shared_negatives` negatives, each with the weight
      `negatives` / `shared_negatives` (as pWord2Vec, arXiv 1604.04661, shares those of a window).
      The expected loss is the same.
    * A batch holds frequent words many times. The sum of the gradients would overshoot, where the
      many small updates of `word2vec.c` saturate. The gradient of a vector that more than
      `max_terms` products contribute to is divided by their number over `max_terms`.

    Other differences:

    * The default architecture is skip-gram; that of `word2vec.c` is CBOW.
    * The rate falls with each step; `word2vec.c` lowers it after every 10,000 words.
    * Passages come in random order. `word2vec.c` reads the text in its order.
    * A passage has at most `data.chunk` words before frequent words are dropped. A sentence of
      `word2vec.c` has up to 1,000 words after that.
    * The ends of lines are no word. `word2vec.c` has the word </s> there, which is no negative.
    * Sigmoids are exact. `word2vec.c` takes them from a table of 1,000 values. Beyond ±6, negative
      sampling uses 0 or 1 there, and hierarchical softmax skips the branch.
    * In the Huffman tree, words come before inner nodes of equal count, and lower numbers first;
      in `word2vec.c` after them, and higher numbers first. The mean length of paths is the same.

    Args:
      encoder: module `Embedding`.
      run: passages of "tokens" and "window", `facts` with "counts", and `symbols` that says how
        large a window can be.
      architecture: "skip_gram" or "cbow".
      loss: "negatives" or "hierarchy" (hierarchical softmax).
      negatives: negatives of each pair; one that is the centre itself has weight 0.
      shared_negatives: number of negatives that 32 centres share.
      max_terms: number of products whose gradients a vector sums up in a batch.

    Raises:
      ValueError: for an unknown name or a number out of range, another encoder, or data without
        words.
    """
    for name, value, known in (
        ("architecture", architecture, ARCHITECTURES),
        ("loss", loss, LOSSES),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(known)}")
    if "counts" not in run.facts or "tokens" not in run.seen or "window" not in run.symbols:
        raise ValueError("word2vec learns from words: choose data.source='text'")
    if not isinstance(encoder, Embedding):
        raise ValueError("word2vec trains a table of word vectors: choose model.name='embedding'")
    if jnp.dtype(encoder.dtype) not in (jnp.float32, jnp.float64):
        raise ValueError(f"word2vec has no {encoder.dtype}: choose model.dtype='float32'")
    if min(negatives, shared_negatives) < 1 or not max_terms > 0:
        raise ValueError("negatives and shared_negatives are at least 1, max_terms above 0")
    counts = np.asarray(run.facts["counts"])
    size, length = BLOCKS[loss], run.seen["tokens"].shape[0]
    window = min(run.symbols["window"], length) - 1  # no word of a passage is farther away
    rows, by_path = table.padded_rows(len(counts)), loss == "hierarchy"
    skips = architecture == "skip_gram"

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        del batch
        params = {
            "encoder": {TABLE: initial_table(key, (rows, encoder.width))},
            "output": {TABLE: jnp.zeros((rows, encoder.width))},
        }
        if by_path:
            return params, {"paths": jnp.asarray(huffman.paths(counts))}
        return params, {"noise": jnp.asarray(noise_thresholds(counts))}

    def encode(
        params: Tree, extra: Tree, batch: Batch, key: jax.Array
    ) -> tuple[dict[str, jax.Array], Tree]:
        tokens = batch["tokens"]
        known = jnp.maximum(tokens, 0)
        outputs = {"tokens": tokens, "window": batch["window"]}
        outputs["input"] = table.take(params["encoder"][TABLE], known)
        if by_path:
            outputs["path"] = jnp.where(tokens[..., None] >= 0, extra["paths"][known], -1)
            nodes = jnp.maximum(outputs["path"] >> 1, 0)
            outputs["nodes"] = table.take(params["output"][TABLE], nodes)
        else:
            shape = (-(-length // size), shared_negatives)
            keys = example_keys(key, batch["index"])
            bits = jax.vmap(lambda key: jax.random.bits(key, shape, jnp.uint32))(keys)
            outputs["negative"] = noise_words(extra["noise"], bits)
            outputs["noise"] = table.take(params["output"][TABLE], outputs["negative"])
            outputs["output"] = table.take(params["output"][TABLE], known)
        return outputs, {}

    def objective(
        params: Tree, extra: Tree, outputs: dict, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
        del params, key, step
        block = word_pairs.blocks(
            outputs["tokens"], outputs["window"], largest=window, size=size,
            dtype=outputs["input"].dtype,
        )  # fmt: skip
        given = _paths_given(outputs, size) if by_path else _negatives_given(outputs, size)
        share = 0.0 if by_path else negatives / shared_negatives
        x = word_pairs.contexts(outputs["input"], size, window)
        context = word_pairs.contexts(outputs["tokens"][..., None], size, window, fill=-1)[..., 0]
        terms = _terms(block, given, share=share, skips=skips)
        x = _limited(x, context, terms.context, rows, max_terms)
        vectors = _limit_outputs(given, terms, rows, max_terms)
        total = _loss(block, x, given, vectors, terms.weights, skips=skips)
        pairs = block.pairs.sum() if skips else word_pairs.has_context(block).sum()
        metrics = {"pair_loss": total / jnp.maximum(pairs, 1)}
        return total, (extra, metrics)

    def features(params: Tree, extra: Tree, x: jax.Array) -> jax.Array:
        del extra
        return jnp.asarray(encoder.apply({"params": params["encoder"]}, x, False), jnp.float32)

    def vectors(params: Tree, extra: Tree) -> jax.Array:
        del extra
        return jnp.asarray(params["encoder"][TABLE][: len(counts)], jnp.float32)

    return Method(
        init,
        encode,
        objective,
        features,
        after_update=lambda params, extra, stats, step: extra,
        params_layout="table",
        vectors=vectors,
        evals=("analogy", "similarity", "neighbours", "knn", "linear"),
    )


class Given(NamedTuple):
    """What the output side of a batch holds, in blocks."""

    centre: jax.Array  # int32 [b, n, s]
    path: jax.Array | None  # int32 [b, n, s, l]
    negative: jax.Array | None  # int32 [b, n, k]
    vectors: tuple[jax.Array, ...]  # (nodes [b, n, s, l, d],) or (centres [b, n, s, d], negatives)


class Terms(NamedTuple):
    """Numbers of products that contribute to a gradient, in the shapes of the vectors."""

    context: jax.Array
    outputs: tuple[jax.Array, ...]
    weights: jax.Array | None  # of negatives


def _paths_given(outputs: dict, size: int) -> Given:
    centre = word_pairs.centres(outputs["tokens"] + 1, size) - 1
    path = word_pairs.centres(outputs["path"] + 1, size) - 1
    return Given(centre, path, None, (word_pairs.centres(outputs["nodes"], size),))


def _negatives_given(outputs: dict, size: int) -> Given:
    centre = word_pairs.centres(outputs["tokens"] + 1, size) - 1
    own = word_pairs.centres(outputs["output"], size)
    return Given(centre, None, outputs["negative"], (own, outputs["noise"]))


def _terms(block: Blocks, given: Given, *, share: float, skips: bool) -> Terms:
    pairs = block.pairs
    per_centre = pairs.sum(-1) if skips else word_pairs.has_context(block).astype(pairs.dtype)
    if given.path is not None:
        nodes = (given.path >= 0).astype(pairs.dtype)
        length = nodes.sum(-1)
        return Terms(
            jnp.einsum("bnsc,bns->bnc", pairs, length), (nodes * per_centre[..., None],), None
        )
    assert given.negative is not None
    weigh = word_pairs.skip_gram_weights if skips else word_pairs.bag_weights
    weights = weigh(block, given.negative, share)
    own = weights.sum(-1) if skips else jnp.einsum("bnsc,bns->bnc", pairs, weights.sum(-1))
    return Terms(pairs.sum(2) + own, (per_centre, weights.sum(2)), weights)


def _limited(
    vectors: jax.Array, words: jax.Array, terms: jax.Array, rows: int, most: float
) -> jax.Array:
    total = jnp.zeros(rows, terms.dtype).at[jnp.maximum(words, 0)].add(terms)
    return _with_limit(vectors, words, total, most)


def _with_limit(vectors: jax.Array, rows: jax.Array, total: jax.Array, most: float) -> jax.Array:
    scale = most / jnp.maximum(total, most)
    return with_scaled_gradient(vectors, scale[jnp.maximum(rows, 0)])


def _limit_outputs(given: Given, terms: Terms, rows: int, most: float) -> tuple[jax.Array, ...]:
    """Limits output vectors; a word counts both as a centre and as a negative."""
    if given.path is not None:
        places: tuple[jax.Array, ...] = (given.path >> 1,)
    else:
        assert given.negative is not None
        places = (given.centre, given.negative)
    total = jnp.zeros(rows, terms.context.dtype)
    for place, count in zip(places, terms.outputs, strict=True):
        total = total.at[jnp.maximum(place, 0)].add(count)
    return tuple(
        _with_limit(vectors, place, total, most)
        for vectors, place in zip(given.vectors, places, strict=True)
    )


def _loss(
    block: Blocks,
    x: jax.Array,
    given: Given,
    vectors: tuple[jax.Array, ...],
    weights: jax.Array | None,
    *,
    skips: bool,
) -> jax.Array:
    if given.path is not None:
        (nodes,) = vectors
        if skips:
            return word_pairs.skip_gram_path_loss(block, x, nodes, given.path)
        bag = word_pairs.context_sums(block, x)
        return word_pairs.bag_path_loss(block, bag, nodes, given.path)
    own, noise = vectors
    assert weights is not None
    if skips:
        own_loss = word_pairs.skip_gram_loss(block, x, own)
        return own_loss + word_pairs.negative_loss(x, weights, noise)
    bag = word_pairs.context_sums(block, x)
    return word_pairs.bag_loss(block, bag, own) + word_pairs.negative_loss(bag, weights, noise)


def noise_thresholds(counts: np.ndarray) -> np.ndarray:
    """Returns the cumulative distribution of negatives, as multiples of 2^-32, uint32 [V].

    Float32 cannot hold it: the last of a million words would have the same value.
    """
    weights = np.asarray(counts, np.float64) ** EXPONENT
    total = np.cumsum(weights) / weights.sum() * 2.0**32
    return np.minimum(total, 2.0**32 - 1).astype(np.uint32)


def noise_words(thresholds: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns the words that uniform random uint32 select, int32, in the shape of `bits`."""
    found: Any = jnp.searchsorted(thresholds, bits.reshape(-1), side="right")
    return jnp.minimum(found, len(thresholds) - 1).astype(jnp.int32).reshape(bits.shape)
