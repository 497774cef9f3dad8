"""Evaluates a network that was fine-tuned with its classifier."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ssl_jax import parallel
from ssl_jax.evals import extract, files, results, wording
from ssl_jax.evals.context import describe_test
from ssl_jax.jobs import bootstrap
from ssl_jax.training.parts import Parts


def evaluate_classifier(config: ConfigDict, parts: Parts, state: Any, path: Path) -> None:
    """Writes eval/finetune.json in the workdir `path` of a fine-tuning, and prints the accuracy."""
    noun = parts.input.noun
    if parts.test is None:
        bootstrap.print_once(f"no labelled test {noun}s: nothing to evaluate by")
        return

    classify = parts.method.logits
    assert classify is not None, "fine-tuning always has a classifier"

    @partial(jax.jit, out_shardings=parallel.replicated(parts.mesh))
    def columns(state: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        x = parts.input.to_model(batch.pop("input"))
        logits = classify(state.params, state.extra, x)
        return batch | {"prediction": logits.argmax(-1)}

    test = extract.map_source(config, parts.mesh, partial(columns, state), parts.test)
    if jax.process_index():
        return
    options = config.finetune
    share = f"{options.labels_per_class or options.fraction:g} of each class"
    head = f" and {options.head_layer} of its head's layers" if options.head_layer else ""
    evaluation = results.classifier(
        test["prediction"],
        test["label"],
        name=config.method.name,
        step=int(state.step),
        protocol={
            "classifier": f"linear, fine-tuned with the encoder{head} from {options.pretrained}",
            "labels": f"{parts.source.size:,} of {config.data.split}, {share}, "
            f"seed {config.train.seed}",
            **describe_test(config, parts.input, parts.test),
        },
        score=wording.score(noun),
    )
    numbers = evaluation["results"][config.method.name]
    numbers |= {"n_labels": parts.source.size, "classes": len(parts.source.classes)}
    numbers |= {"head_layer": config.finetune.head_layer}
    files.write(path, {"finetune": evaluation})
    print(
        f"top-1 accuracy {100 * numbers['accuracy']:.2f} on {numbers['n_test']:,} test {noun}s, "
        f"fine-tuned on {parts.source.size:,} labels",
        flush=True,
    )
