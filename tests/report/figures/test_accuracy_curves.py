import numpy as np
import pytest
from png_files import png_size

from ssl_jax.report.figures import accuracy_curves


def few_shot(**results):
    return {"evaluation": "few_shot", "results": results}


def test_draws_bands_only_for_results_with_intervals(tmp_path):
    with_ci = {"shots": [1, 5, 100], "accuracy": [0.1, 0.5, 0.9], "ci95": [0.1, 0.1, 0.01]}
    without_ci = {"shots": [1, 5], "accuracy": [0.1, 0.2]}
    lines = accuracy_curves._lines(few_shot(a=with_ci, b=without_ci))
    np.testing.assert_allclose(lines[0].spread, [10, 10, 1])
    np.testing.assert_allclose(lines[1].y, [10, 20])
    assert lines[1].spread is None
    assert "Band" in accuracy_curves.caption(few_shot(a=with_ci))
    assert "Band" not in accuracy_curves.caption(few_shot(b=without_ci))
    assert accuracy_curves.draw(few_shot(a=with_ci, b=without_ci), "b", tmp_path / "a.png")
    assert png_size(tmp_path / "a.png") == (870, 585)


@pytest.mark.parametrize(
    "broken",
    [
        {"shots": [1, 2], "accuracy": [0.1]},
        {"shots": [0], "accuracy": [0.1]},
        {"shots": [1], "accuracy": [None]},
        {"shots": [], "accuracy": []},
        {"accuracy": 0.5},
        [1],
    ],
)
def test_leaves_out_incomplete_results(tmp_path, broken):
    assert not accuracy_curves.draw(few_shot(a=broken), "a", tmp_path / "a.png")


def test_layers_keep_their_order(tmp_path):
    result = {"layers": ["stem", "z", "a"], "accuracy": [0.1, 0.2, 0.3]}
    evaluation = {"evaluation": "layers", "results": {"simclr": result}}
    assert accuracy_curves._lines(evaluation)[0].x == ["stem", "z", "a"]
    assert accuracy_curves.draw(evaluation, "simclr", tmp_path / "a.png")
