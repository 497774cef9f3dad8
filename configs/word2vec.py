"""word2vec (Mikolov et al. 2013, arXiv 1301.3781 and 1310.4546): word vectors from plain text.

    python -m ssl_jax.train --config=configs/word2vec.py:VARIANT --config.data.dir=TEXT \\
        --workdir=runs/NAME

TEXT is a text file, or a folder of text files. docs/words.md describes the data and evaluation,
docs/methods.md how the method differs from `word2vec.c`.

:text          Skip-gram and negative sampling, with the defaults of `word2vec.c` for skip-gram (its
               default algorithm is CBOW).
:cbow          CBOW and negative sampling.
:skipgram_hs   Skip-gram and hierarchical softmax.
:cbow_hs       CBOW and hierarchical softmax.
:bbc           As :text, for small texts of half a million words: 20 epochs and small batches. Takes
               minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from ssl_jax.configs import common

METHOD = {
    "name": "word2vec",
    "architecture": "skip_gram",  # skip_gram | cbow
    "loss": "negatives",  # negatives | hierarchy
    "negatives": 5,
    "shared_negatives": 64,  # by 32 neighbouring centres
    "max_terms": 256.0,  # products whose gradients a vector sums up in a batch
}


def get_config(arg: str = "text") -> ConfigDict:
    """Returns a variant."""
    variants = (text, cbow, skipgram_hs, cbow_hs, bbc)
    return common.select(arg, METHOD, *variants, source="text")


def text(config: ConfigDict) -> None:
    """Skip-gram and negative sampling with the defaults of `word2vec.c`.

    Width 100, window 5, 5 negatives, threshold 1e-3 of subsampling, words that occur 5 times, rate
    0.025 (0.05 of CBOW) that falls on a line, and 5 epochs are those of the code, whose rate stops
    falling at 1e-4 of its start. The number of words per batch is ours: `ssl_jax.methods.word2vec`
    says what follows from it, and lists all differences.
    """
    config.model = {
        "name": "embedding",
        "width": 100,
        "dtype": "float32",
        "bn_group": 0,
        "init": "",
    }
    config.augment.update(window=5, subsample=1e-3)
    config.data.update(min_count=5, chunk=256)
    config.optim.update(
        name="plain", lr=0.025, lr_rule="constant", schedule="linear", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.0,
    )  # fmt: skip
    config.train.update(batch_size=64, epochs=5.0, log_every=50, checkpoint_every=1000)
    config.eval.update(protocols=("analogy", "similarity", "neighbours", "knn", "linear"), knn_k=20)


def cbow(config: ConfigDict) -> None:
    """CBOW and negative sampling: rate 0.05."""
    text(config)
    config.method.architecture = "cbow"
    config.optim.lr = 0.05


def skipgram_hs(config: ConfigDict) -> None:
    """Skip-gram and hierarchical softmax."""
    text(config)
    config.method.loss = "hierarchy"


def cbow_hs(config: ConfigDict) -> None:
    """CBOW and hierarchical softmax."""
    cbow(config)
    config.method.loss = "hierarchy"


def bbc(config: ConfigDict) -> None:
    """As `text`, for small texts: 20 epochs, 16 passages per batch."""
    text(config)
    config.train.update(batch_size=16, epochs=20.0, checkpoint_every=500)
