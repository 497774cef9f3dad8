"""The accuracy of a network that was fine-tuned with its classifier."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ssl_jax import parallel
from ssl_jax.assess import images
from ssl_jax.assess.setup import test_images
from ssl_jax.evals import files, suite
from ssl_jax.training.parts import Parts


def evaluate_classifier(config: ConfigDict, parts: Parts, state: Any, path: Path) -> None:
    """Writes eval/finetune.json into the fine-tuning at `path`, and prints the accuracy."""
    if parts.test is None:
        print("no labelled test images: nothing to evaluate by", flush=True)
        return

    classify = parts.method.logits
    assert classify is not None, "fine-tuning always has a classifier"

    @partial(jax.jit, out_shardings=parallel.replicated(parts.mesh))
    def columns(state: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        x = parts.input.to_model(batch.pop("input"))
        logits = classify(state.params, state.extra, x)
        return batch | {"prediction": logits.argmax(-1)}

    test = images.extract(config, parts.mesh, partial(columns, state), parts.test)
    if jax.process_index():
        return
    options = config.finetune
    share = f"{options.labels_per_class or options.fraction:g} of each class"
    head = f" and {options.head_layer} of its head's layers" if options.head_layer else ""
    found = suite.classifier(
        test["prediction"],
        test["label"],
        name=config.method.name,
        step=int(state.step),
        protocol={
            "classifier": f"linear, fine-tuned with the encoder{head} from {options.pretrained}",
            "labels": f"{parts.source.size:,} of {config.data.split}, {share}, "
            f"seed {config.train.seed}",
            **test_images(config, parts.test),
        },
    )
    numbers = found["results"][config.method.name]
    numbers |= {"n_labels": parts.source.size, "classes": len(parts.source.classes)}
    numbers |= {"head_layer": config.finetune.head_layer}
    files.write(path, {"finetune": found})
    print(
        f"top-1 accuracy {100 * numbers['accuracy']:.2f} on {numbers['n_test']:,} test images, "
        f"fine-tuned on {parts.source.size:,} labels",
        flush=True,
    )
