import json

import numpy as np

from ssl_jax.evals import files


def test_evaluations_are_read_as_they_were_written(tmp_path):
    evaluations = {"knn": {"step": 40, "results": {"simclr": {"accuracy": 0.5}}}, "linear_4": {}}
    files.write(tmp_path, evaluations)
    names = sorted(path.name for path in (tmp_path / "eval").iterdir())
    assert names == ["knn.json", "linear_4.json"]
    for name, evaluation in evaluations.items():
        assert json.loads((tmp_path / "eval" / f"{name}.json").read_text()) == evaluation
    assert files.read(tmp_path, ["linear_4", "absent", "knn"]) == evaluations


def test_sample_holds_at_most_its_limit(tmp_path):
    n = files.MAX_SAMPLE + 5
    files.write_sample(
        tmp_path,
        features=np.ones((n, 3)),
        label=np.zeros(n, int),
        pictures=np.zeros((n, 4, 4, 3), np.uint8),
        index=np.arange(n),
        classes=("a", "b"),
        saliency=np.zeros((2, 4, 4)),
    )
    with np.load(tmp_path / "eval" / "sample.npz") as sample:
        assert sample["features"].shape == (files.MAX_SAMPLE, 3)
        assert sample["classes"].tolist() == ["a", "b"]
        assert [sample[k].dtype for k in ("features", "label", "image", "index")] == [
            "f4", "i4", "u1", "i8",
        ]  # fmt: skip
    assert [p.name for p in (tmp_path / "eval").iterdir()] == ["sample.npz"]
