"""Accuracy of an exported run in PyTorch against its accuracy in JAX.

    python -m benchmarks.exported --workdir=runs/demo

Exports the run with `--format=torch` and loads it with the exported model.py, in PyTorch alone.
Then classifies the run's test images by the run's kNN protocol with PyTorch's features. Requires
torch.
"""

import json
import pathlib
import runpy
import tempfile
from typing import Any

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Runs the benchmark; see the module's docstring."""
    del argv
    from ssl_jax import components
    from ssl_jax import config as configuration
    from ssl_jax.evals import knn

    workdir = pathlib.Path(FLAGS.workdir).absolute()
    config = configuration.load(workdir)
    with tempfile.TemporaryDirectory() as folder:
        network = load_in_torch(workdir, pathlib.Path(folder))
        train, test = (
            features(config, components.open_source(config, split), network)
            for split in (config.data.split, config.data.eval_split)
        )
    predicted = knn.predict(
        train[0], train[1], test[0], k=config.eval.knn_k, temperature=config.eval.knn_temperature
    )
    in_torch = 100 * np.mean(predicted == test[1])
    result = json.loads((workdir / "eval" / "knn.json").read_text())["results"]
    in_jax = 100 * result[config.method.name]["accuracy"]
    accuracies = f"{in_jax:.2f} with JAX's features, {in_torch:.2f} with PyTorch's"
    print(f"{config.eval.knn_k}-NN: {accuracies}")


def load_in_torch(workdir: pathlib.Path, folder: pathlib.Path) -> Any:
    """Exports the run into `folder` and returns the network that the exported model.py loads."""
    from ssl_jax.export.subject import Subject
    from ssl_jax.export.write import write
    from ssl_jax.pretrained import backbone

    written = write(Subject(backbone.load(workdir)), "torch", folder)
    return runpy.run_path(str(written.folder / "model.py"))["load"](written.folder)


def features(config: Any, source: Any, network: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns PyTorch's features [n, f] and labels [n] of a source, with the evaluation's crop."""
    import torch

    from ssl_jax import components

    rows, labels = [], []
    for batch in components.eval_batches(config, source, batch_size=config.eval.batch_size):
        real = batch["mask"].astype(bool)
        x = np.ascontiguousarray(batch["input"][real].transpose(0, 3, 1, 2), np.float32) / 255
        with torch.no_grad():
            rows.append(network(torch.from_numpy(x)).numpy())
        labels.append(batch["label"][real])
    return np.concatenate(rows), np.concatenate(labels)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of an evaluated run.", required=True)
    app.run(main)
