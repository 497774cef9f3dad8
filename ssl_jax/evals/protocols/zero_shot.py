"""Protocol `zero_shot`: classification of images by the text embeddings of the class names."""

from typing import Any

import jax
import numpy as np

from ssl_jax import parallel
from ssl_jax.data.pairs import tokenizer_from_facts
from ssl_jax.evals import draws, wording
from ssl_jax.evals.context import Context, describe_test
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.results import check_labels
from ssl_jax.evals.subjects import RAW

NEEDS = Needs(train_features=False, method=True, towers=True)
ORDER = 18


def run(context: Context) -> Measured:
    """Classifies each test image by the class whose mean prompt embedding is nearest."""
    columns = context.embedded
    check_labels(columns["label"], split="test")
    results: dict[str, dict[str, Any]] = {}
    predictions = {}
    for name, column in context.columns.items():
        if column == RAW:
            continue
        classes = class_embeddings(context, context.subject.weights[column])
        predicted = (columns[f"{column}/image"] @ classes.T).argmax(1)
        numbers = draws.summary([float(np.mean(predicted == columns["label"]))])
        results[name] = numbers | {"n_test": len(predicted), "classes": len(classes)}
        predictions[name] = predicted
    return Measured(results, predictions)


def class_embeddings(context: Context, weights: Any) -> np.ndarray:
    """Returns the unit mean of the unit embeddings of all prompts of each class, [k, d].

    Source: CLIP (Radford et al., arXiv 2103.00020), section 3.1.4.
    """
    names = [name.replace("_", " ") for name in context.source.classes]
    prompts = context.options.prompts
    texts = [prompt.replace("{}", name) for name in names for prompt in prompts]
    length = context.config.augment.text_length
    tokens = tokenizer_from_facts(context.source.facts).encode_all(texts, length)
    embed = jax.jit(context.subject.towers["text"], out_shardings=parallel.replicated(context.mesh))
    size = min(context.options.batch_size, len(tokens))
    parts = []
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        # Repeated rows fill the last block: one shape, one compilation.
        parts.append(np.asarray(embed(weights, np.resize(part, (size, length))))[: len(part)])
    means = np.concatenate(parts).reshape(len(names), len(prompts), -1).mean(1)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    return {
        "classifier": "the class whose prompts are nearest: cosine with the mean of their unit "
        "embeddings (CLIP, arXiv 2103.00020, section 3.1.4)",
        "prompts": list(context.options.prompts),
        "labels": "none of the training examples; class names only",
        "score": wording.score(context.noun),
    } | describe_test(context.config, context.input, context.held_out)


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its column."""
    del protocol
    return "zero-shot"
