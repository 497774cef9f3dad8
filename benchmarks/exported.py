"""Does an exported run classify in PyTorch as it does here?

    python -m benchmarks.exported --workdir=runs/demo

Exports the run by `--format=torch`, loads it by the model.py of the export in PyTorch alone, and
classifies the run's test images by the run's kNN with PyTorch's features.
"""

import json
import pathlib
import runpy
import tempfile
from typing import Any

import numpy as np
from absl import app, flags

from ssl_jax import assess, build
from ssl_jax import config as configuration
from ssl_jax.evals import knn

FLAGS = flags.FLAGS


def features(config: Any, source: Any, net: Any) -> dict[str, np.ndarray]:
    """PyTorch's features and the labels of all images of `source`, as evaluation cuts them."""
    import torch

    found: dict[str, list[np.ndarray]] = {"features": [], "label": []}
    for batch in assess.eval_batches(config, source, batch_size=config.eval.batch_size):
        real = batch["mask"].astype(bool)
        images = batch["image"][real].astype(np.float32) / 255
        with torch.no_grad():
            z = net(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
        found["features"].append(z.numpy())
        found["label"].append(batch["label"][real])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def main(argv: list[str]) -> None:
    """The benchmark: see the module's docstring."""
    del argv
    workdir = pathlib.Path(FLAGS.workdir)
    config = configuration.load(workdir.absolute())
    with tempfile.TemporaryDirectory() as folder:
        net = load_in_torch(workdir, pathlib.Path(folder))
        train, test = (
            features(config, build.source(config, split), net)
            for split in (config.data.split, config.data.eval_split)
        )
    settings = {"k": config.eval.knn_k, "temperature": config.eval.knn_temperature}
    sets = (train["features"], train["label"], test["features"], test["label"])
    theirs = 100 * knn.accuracy(*sets, **settings)
    result = json.loads((workdir / "eval" / "knn.json").read_text())["results"]
    ours = 100 * result[config.method.name]["accuracy"]
    print(f"{config.eval.knn_k}-NN: {ours:.2f} by JAX's features, {theirs:.2f} by PyTorch's")


def load_in_torch(workdir: pathlib.Path, folder: pathlib.Path) -> Any:
    """Exports the run into `folder`; the network that the export's own model.py loads."""
    from ssl_jax import backbone, export

    written = export.write(backbone.load(workdir), "torch", folder)
    return runpy.run_path(str(written / "model.py"))["load"](written)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of an evaluated run.", required=True)
    app.run(main)
