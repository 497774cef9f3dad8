"""A study's files, written by hand."""

import json

from ssl_jax import config as configuration
from ssl_jax.study import folder

IMAGES = 1000


def write_study(path, config, text, *, accuracy=None, skip=(), **metrics):
    """A study all of whose cells are done.

    Args:
      accuracy: (cell) -> fraction, of both evaluations.
      skip: names of cells that are not started.
      metrics: of the last step, by name: (cell) -> number.
    """
    path.mkdir(parents=True, exist_ok=True)
    study = folder.open_study(path, config, ["--config=configs/simclr.py:digits"], text)
    folder.save(study)
    for cell in study.cells:
        if not cell.same_as and cell.name not in skip:
            value = accuracy(cell) if accuracy else 0.9
            write_cell(study, cell, value, {name: of(cell) for name, of in metrics.items()})
    return study


def write_cell(study, cell, accuracy, metrics):
    """A run that is trained and evaluated."""
    run, steps = study.run(cell), folder.total_steps(cell.config, IMAGES)
    manifest = run / "checkpoints" / str(steps) / "MANIFEST.json"
    for parent in (manifest.parent, run / "eval"):
        parent.mkdir(parents=True)
    manifest.write_text("{}")
    (run / "config.json").write_text(configuration.to_json(cell.config))
    metadata = {"train_images": IMAGES, "devices": cell.devices or 2, "platform": "cpu"}
    (run / "metadata.json").write_text(json.dumps(metadata))
    rows = [{"step": 1, "loss": 5.0}, {"step": steps, "loss": 4.0, "images_per_second": 800.0}]
    rows[-1] |= metrics
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, protocol in (
        ("linear_10", "linear", {"labels_per_class": 10, "draws": 3}),
        ("knn", "knn", {"k": 20}),
        ("label_free", "label_free", {}),
    ):
        result = {} if kind == "label_free" else {"accuracy": accuracy}
        found = {"evaluation": kind, "protocol": protocol, "step": steps}
        found["results"] = {"simclr": result}
        (run / "eval" / f"{name}.json").write_text(json.dumps(found))
    done = {word: {"step": steps} for word in cell.config.eval.protocols}
    (run / "eval" / ".done").write_text(json.dumps(done))
    study.write_record(cell, {"exit": 0, "seconds": 60.0, "attempts": 1, "lines": []})
