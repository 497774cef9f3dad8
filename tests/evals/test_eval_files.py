import json

import numpy as np
import pytest

from ssl_jax.config import default_config
from ssl_jax.errors import Fault
from ssl_jax.evals import done, files
from ssl_jax.rundir import workdir


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


def test_a_damaged_evaluation_is_read_as_empty_and_removed_with_other_steps(tmp_path):
    files.write(tmp_path, {"knn": {"step": 40}, "linear": {"step": 40}})
    (tmp_path / "eval" / "knn.json").write_text('{"step": 4')
    assert files.read(tmp_path, ["knn", "linear"]) == {"knn": {}, "linear": {"step": 40}}
    files.remove_other_steps(tmp_path, 40)
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["linear.json"]


def test_damaged_predictions_are_replaced(tmp_path):
    label = np.arange(3)
    files.write_predictions(tmp_path, label, {"knn": label})
    (tmp_path / "eval" / "predictions.npz").write_bytes(b"PK\x03\x04")
    files.write_predictions(tmp_path, label, {"linear": label})
    with np.load(tmp_path / "eval" / "predictions.npz") as arrays:
        assert sorted(arrays) == ["label", "linear"]


def test_an_eval_folder_that_leaves_the_workdir_is_refused(tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "eval").symlink_to(tmp_path / "host")
    with pytest.raises(Fault, match="eval: it is a link out of"):
        files.write(tmp_path / "run", {"knn": {}})
    assert list((tmp_path / "host").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"knn": 3}', b"\xff", b"[" * 9999])
def test_a_damaged_done_file_means_not_done(tmp_path, content):
    config = default_config()
    (tmp_path / "eval").mkdir()
    workdir.write_json(
        tmp_path / "eval" / done.DONE,
        dict.fromkeys(config.eval.protocols, done.settings(config, 5)),
    )
    assert done.is_done(config, tmp_path, 5)
    (tmp_path / "eval" / done.DONE).write_bytes(content)
    assert not done.is_done(config, tmp_path, 5)
