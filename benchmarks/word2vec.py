"""word2vec beside gensim: words per second, classification of documents, neighbours.

    pip install gensim
    python -m benchmarks.word2vec --text=DATA_DIR/bbc_text/bbc_news.txt --work=runs/words

The file holds the BBC's news without ends of documents, in the order of its five classes. The
benchmark cuts each class into passages of 200 words; the last fifth of each class is the test
split.
Both trainers see the training passages, in an order drawn by the seed (gensim keeps it in all
epochs), with the settings of `word2vec.c`. Seeds and trainers take turns, so that other load on the
machine meets both. Compilation, and building the vocabulary, are not part of the times. The words
are all words of the vocabulary before subsampling.

Prints, for each algorithm and trainer, mean and half the range over seeds:

* words per second of wall time, and of CPU time of all threads;
* test accuracy of logistic regression on mean vectors, as protocol `linear`;
* share of common words among the ten nearest neighbours of the 1,000 most frequent words, between
  two seeds of gensim, between two seeds of ours, and between ours and gensim.
"""

import itertools
import logging
import pathlib
import time
from typing import Any

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
# Where classes start in the file: the first words of their first article.
CLASSES = {
    "business": "sale boost time warner",
    "entertainment": "gallery unveils interactive",
    "politics": "labour plan maternity",
    "sport": "claxton hunting first",
    "tech": "ink help drive democracy",
}
PASSAGE, TEST = 200, 0.2
QUERIES, NEIGHBOURS = 1000, 10
VARIANTS = {
    "skip_gram": {"architecture": "skip_gram", "loss": "negatives"},
    "cbow": {"architecture": "cbow", "loss": "negatives"},
    "skip_gram_hs": {"architecture": "skip_gram", "loss": "hierarchy"},
    "cbow_hs": {"architecture": "cbow", "loss": "hierarchy"},
}


def main(_: Any) -> None:
    """Runs the benchmark; see the module's docstring."""
    logging.getLogger("gensim").setLevel(logging.WARNING)
    folder = pathlib.Path(FLAGS.work)
    write_passages(pathlib.Path(FLAGS.text).read_text(), folder)
    from ssl_jax import parallel

    parallel.use_cpu_cores_as_devices(FLAGS.batch)
    for name in FLAGS.algorithms:
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "gensim": []}
        for seed in range(FLAGS.seeds):
            runs["ours"].append(_ours(folder, name, seed))
            runs["gensim"].append(_gensim(folder, name, seed))
        for trainer, results in runs.items():
            values = {
                key: [result[key] for result in results]
                for key in ("words/s", "words/CPU s", "accuracy")
            }
            text = ", ".join(f"{key} {_mean(value)}" for key, value in values.items())
            print(f"{name:13} {trainer:7} {text}", flush=True)
        print(f"{name:13} neighbours {_agreements(runs)}", flush=True)


def write_passages(text: str, folder: pathlib.Path) -> None:
    """Writes folder/SPLIT/CLASS/passages.txt, a passage of 200 words in each line."""
    starts = [text.index(words) for words in CLASSES.values()] + [len(text)]
    for name, start, end in zip(CLASSES, starts, starts[1:], strict=False):
        words = text[start:end].split()
        passages = [
            " ".join(words[i : i + PASSAGE]) for i in range(0, len(words) - PASSAGE, PASSAGE)
        ]
        cut = round(len(passages) * (1 - TEST))
        for split, part in (("train", passages[:cut]), ("test", passages[cut:])):
            path = folder / split / name / "passages.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(part) + "\n")


def _config(folder: pathlib.Path, name: str, seed: int) -> Any:
    import importlib

    config = importlib.import_module("ssl_jax.configs.word2vec").get_config("bbc")
    config.data.dir = str(folder)
    config.method.update(VARIANTS[name])
    config.optim.lr = 0.05 if "cbow" in name else 0.025
    config.train.update(seed=seed, epochs=FLAGS.epochs, batch_size=FLAGS.batch)
    return config


def _ours(folder: pathlib.Path, name: str, seed: int) -> dict[str, Any]:
    import jax

    from ssl_jax import build, components, parallel

    config = _config(folder, name, seed)
    mesh = parallel.make_mesh()
    with jax.set_mesh(mesh):
        parts = build.parts(config, mesh)
        state, metrics = parts.new_state(), None
        total = parts.total_steps
        batches = components.train_batches(
            config, parts.source, start_step=0, num_steps=total, example_input=parts.input
        )
        start, cpu, first = 0.0, 0.0, 3
        for step, batch in enumerate(batches):
            if step == first:  # compiled, and the threads of the pipeline run
                jax.block_until_ready(state)
                start, cpu = time.monotonic(), time.process_time()
            state, metrics = parts.train_step(state, parallel.to_global(batch, mesh))
        jax.block_until_ready((state, metrics))
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
        batches.close()
        assert parts.method.vectors is not None
        vectors = np.asarray(parts.method.vectors(state.params, state.extra))
    words = parts.source.facts["words"].tolist()
    share = (total - first) / total * FLAGS.epochs
    count = share * parts.source.facts["counts"].sum()
    result = {"words/s": count / seconds, "words/CPU s": count / cpu, "words": words}
    return result | {"vectors": vectors, "accuracy": _accuracy(folder, words, vectors)}


def _gensim(folder: pathlib.Path, name: str, seed: int) -> dict[str, Any]:
    from gensim.models import Word2Vec

    passages = [words for _, words in _passages(folder, "train")]
    order = np.random.default_rng(seed).permutation(len(passages))
    by_path = name.endswith("_hs")
    rate = 0.05 if "cbow" in name else 0.025
    model = Word2Vec(
        vector_size=100, window=5, min_count=5, sample=1e-3, sg=int("skip" in name),
        hs=int(by_path), negative=0 if by_path else 5, workers=2, seed=seed + 1, alpha=rate,
        min_alpha=rate * 1e-4,
    )  # fmt: skip
    shuffled = [passages[i] for i in order]
    model.build_vocab(shuffled)
    start, cpu = time.monotonic(), time.process_time()
    model.train(shuffled, total_examples=len(shuffled), epochs=int(FLAGS.epochs))
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    words, vectors = list(model.wv.index_to_key), model.wv.vectors
    count = FLAGS.epochs * sum(model.wv.get_vecattr(word, "count") for word in words)
    result = {"words/s": count / seconds, "words/CPU s": count / cpu, "words": words}
    return result | {"vectors": vectors, "accuracy": _accuracy(folder, words, vectors)}


def _passages(folder: pathlib.Path, split: str) -> list[tuple[int, list[str]]]:
    """Returns (number of the class, words) of every passage, divided as our source does."""
    from ssl_jax.data.vocabulary import tokenise

    return [
        (number, list(tokenise(line, "words")))
        for number, name in enumerate(CLASSES)
        for line in (folder / split / name / "passages.txt").read_text().splitlines()
    ]


def _accuracy(folder: pathlib.Path, words: list[str], vectors: np.ndarray) -> float:
    from ssl_jax.evals import linear

    number = {word: i for i, word in enumerate(words)}
    columns: list[np.ndarray] = []
    for split in ("train", "test"):
        labels, features = [], []
        for label, passage in _passages(folder, split):
            known = [number[word] for word in passage if word in number]
            features.append(vectors[known].mean(0) if known else np.zeros(vectors.shape[1]))
            labels.append(label)
        columns += [np.array(features, np.float32), np.array(labels, np.int32)]
    return 100 * linear.sweep(*columns)[0]["accuracy"]


def _agreements(runs: dict[str, list[dict[str, Any]]]) -> str:
    sets = {trainer: [_neighbours(run) for run in results] for trainer, results in runs.items()}
    pairs = {
        "gensim and gensim": list(itertools.combinations(sets["gensim"], 2)),
        "ours and ours": list(itertools.combinations(sets["ours"], 2)),
        "ours and gensim": list(itertools.product(sets["ours"], sets["gensim"])),
    }
    shares = {
        name: [
            float(np.mean([len(a[word] & b[word]) / NEIGHBOURS for word in a if word in b]))
            for a, b in both
        ]
        for name, both in pairs.items()
    }
    return ", ".join(f"{name} {_mean(value, 3)}" for name, value in shares.items() if value)


def _neighbours(run: dict[str, Any]) -> dict[str, set[str]]:
    from ssl_jax.evals import word_vectors

    words, rows = run["words"], word_vectors.unit(run["vectors"])
    found, _ = word_vectors.nearest(rows, np.arange(QUERIES), NEIGHBOURS)
    return {words[i]: {words[j] for j in near} for i, near in enumerate(found)}


def _mean(values: list[float], digits: int = 1) -> str:
    half = (max(values) - min(values)) / 2
    if values[0] > 1000:
        return f"{np.mean(values):,.0f} ± {half:,.0f}"
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    flags.DEFINE_string("text", None, "The file bbc_news.txt.", required=True)
    flags.DEFINE_string("work", "runs/words", "Folder for the passages.")
    flags.DEFINE_list("algorithms", list(VARIANTS), "Algorithms to train.")
    flags.DEFINE_integer("seeds", 2, "Seeds of each trainer.", lower_bound=1)
    flags.DEFINE_float("epochs", 20.0, "Epochs.")
    flags.DEFINE_integer("batch", 16, "Passages per batch of ours.", lower_bound=1)
    app.run(main)
