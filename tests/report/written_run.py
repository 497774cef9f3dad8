"""Writes the files of a run by hand."""

import json
import pathlib
from typing import Any

import numpy as np

# Class names that would break a figure or a page if they were not escaped.
HOSTILE = ["$x_{$", "_hidden", "a\nb\t---", "🐱" * 9, "x" * 300, "<b>&`", "%s {0}"]


def write_run(folder: pathlib.Path) -> pathlib.Path:
    """Writes a finished run with two classes, 30 test examples and 50 logged steps."""
    (folder / "eval").mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "method": {"name": "simclr", "temperature": 0.25},
                "data": {"source": "tfds:cifar10", "dir": ""},
                "model": {"name": "resnet10", "width": 0.25},
                "train": {"batch_size": 32, "seed": 7},
            }
        )
    )
    command = "python -m ssl_jax.train --config=configs/simclr.py --note='<b>&'"
    (folder / "metadata.json").write_text(
        json.dumps({"command": command, "device": "cpu", "versions": {"jax": "0.10.2"}})
    )
    rows = [
        {
            "step": 10 * i,
            "epoch": i / 5,
            "loss": 4.0 - i / 50,
            "contrastive_accuracy": i / 100,
            "contrastive_chance": 1 / 63,
            "uniformity": -i / 20,
            "probe_accuracy": 0.5,
            "lr": 1e-3,
            "images_per_second": 800.0,
            "feature_std": 0.4,
            "effective_rank": 20.0 - i / 5,
            "feature_alignment": 0.3,
            "feature_uniformity": -0.8,
        }
        for i in range(1, 51)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {
        "simclr": {"accuracy": 0.8125, "std": 0.0213, "draws": [0.8, 0.825], "n_test": 30},
        "raw pixels": {"accuracy": 0.4375, "std": 0.01, "draws": [0.43, 0.445], "n_test": 30},
    }
    linear = {
        "evaluation": "linear",
        "protocol": {"labels_per_class": 10, "score": "top-1 & more"},
        "step": 500,
        "results": results,
    }
    (folder / "eval" / "linear_10.json").write_text(json.dumps(linear))
    one = {name: r | {"draws": [r["accuracy"]]} for name, r in results.items()}
    knn = {"evaluation": "knn", "protocol": {"k": 20}, "step": 500, "results": one}
    (folder / "eval" / "knn.json").write_text(json.dumps(knn))
    rng = np.random.default_rng(0)
    label = np.arange(30) % 2
    np.savez(
        folder / "eval" / "sample.npz",
        features=(rng.normal(size=(30, 8)) + 3 * np.eye(2, 8)[label]).astype(np.float32),
        label=label.astype(np.int32),
        image=rng.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8),
        index=np.arange(30),
        classes=np.array(["cat", "<dog>"]),
        saliency=rng.random((3, 4, 4)).astype(np.float16),
    )
    np.savez(folder / "eval" / "predictions.npz", label=label, knn=0 * label, linear_10=label)
    return folder


def write_evaluation(folder: pathlib.Path, name: str, kind: str, results: Any, **more: Any) -> None:
    """Adds an evaluation to a run."""
    evaluation = {"evaluation": kind, "protocol": {}, "step": 500, "results": results, **more}
    (folder / "eval" / f"{name}.json").write_text(json.dumps(evaluation))


def change_config(folder: pathlib.Path, **sections: dict[str, Any]) -> pathlib.Path:
    """Sets fields in sections of a run's config."""
    config = json.loads((folder / "config.json").read_text())
    for name, fields in sections.items():
        config[name] = config.get(name, {}) | fields
    (folder / "config.json").write_text(json.dumps(config))
    return folder
