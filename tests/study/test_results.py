"""Results, means over seeds and tables from the files of cells, against hand-worked numbers."""

import csv
import io
import json

import pytest
from scipy import stats

from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, Fault
from ssl_jax.study import accuracy_table, results, seed_means, study_folder


def by_seed(*fractions):
    """Returns a function from a cell to its accuracy, given accuracies of the seeds 0, 1, ..."""
    return lambda cell: fractions[cell.setting["seed"]]


def csv_rows(study):
    return list(csv.DictReader(io.StringIO(results.to_csv(results.read_results(study)))))


def test_csv_has_a_row_per_cell_with_settings_results_and_protocol(study_of):
    study = study_of(
        "batch=64,128;epochs=4;lr_rule=linear,sqrt;seed=0",
        accuracy=lambda cell: 0.5 + cell.setting["batch"] / 1000,
        noise_scale=lambda cell: 123.4,
    )
    first, second, third, fourth = csv_rows(study)
    assert first["cell"] == "batch=64-epochs=4-lr_rule=linear-seed=0"
    assert (first["length"], first["unit"], first["lr_rule"]) == ("4", "epochs", "linear")
    assert (first["base_lr"], first["lr"]) == (
        "0.01",
        "0.0025",
    )  # config: 0.005 at batch 128
    assert (second["base_lr"], second["lr"]) == ("0.000441942", "0.00353553")
    assert float(first["linear_10_percent"]) == pytest.approx(56.4)
    assert first["linear_10_protocol"] == "Linear, 10 labels per class; mean of 3 draws"
    assert first["knn_protocol"] == "kNN, k = 20"
    assert (first["steps"], first["images"]) == ("63", "4032")  # 4 · 1000 / 64, rounded up
    assert (first["final_loss"], first["noise_scale_images"]) == ("4", "123.4")
    assert (first["images_per_second"], first["seconds"]) == ("800", "60")
    assert (first["devices"], first["status"], first["same_as"]) == ("2", "done", "")
    assert fourth["same_as"] == third["cell"]
    assert fourth["linear_10_percent"] == third["linear_10_percent"] == "62.8"


def test_csv_has_a_column_for_each_other_key_of_the_grid(study_of):
    study = study_of("batch=64;optim.weight_decay=0.1,0.2")
    assert [row["optim.weight_decay"] for row in csv_rows(study)] == ["0.1", "0.2"]


def test_status_follows_the_files_of_a_cell(study_of):
    study = study_of("steps=5;seed=0,1,2,3", skip=["steps=5-seed=1", "steps=5-seed=2"])
    study.write_record(study.cells[1], {"exit": 80, "seconds": 1.0, "lines": []})
    study.run_path(study.cells[2]).mkdir(parents=True)
    (study.run_path(study.cells[3]) / "checkpoints" / "5" / "MANIFEST.json").unlink()
    states = [row["status"] for row in csv_rows(study)]
    assert states == ["done", "diverged", "unfinished", "unfinished"]


def test_a_cell_evaluated_at_another_step_is_unfinished(study_of):
    study = study_of("steps=5")
    (study.run_path(study.cells[0]) / "eval" / ".done").write_text(
        '{"knn": {"step": 4}, "linear": {"step": 5}, "label_free": {"step": 5}}'
    )
    assert [row["status"] for row in csv_rows(study)] == ["unfinished"]


def test_a_cell_that_stopped_early_is_done(study_of):
    study = study_of("steps=50")
    run = study.run_path(study.cells[0])
    (run / "checkpoints" / "50").rename(run / "checkpoints" / "20")
    done = {name: {"step": 20} for name in ("knn", "linear", "label_free")}
    (run / "eval" / ".done").write_text(json.dumps(done))
    assert [row["status"] for row in csv_rows(study)] == ["unfinished"]
    metadata = json.loads((run / "metadata.json").read_text())
    early = {"stopped_early": {"step": 20, "reason": "stopped early at step 20 of 50"}}
    (run / "metadata.json").write_text(json.dumps(metadata | early))
    assert [row["status"] for row in csv_rows(study)] == ["done"]


def test_a_point_is_the_mean_over_seeds_with_its_t_interval(study_of):
    (panel,) = seed_means.panels(
        results.read_results(study_of("batch=64;seed=0,1,2", accuracy=by_seed(0.90, 0.91, 0.92)))
    )
    mean = panel.points[0].mean("linear_10")
    low, high = stats.t.interval(0.95, 2, loc=91.0, scale=1 / 3**0.5)
    assert (mean.value - mean.half, mean.value + mean.half) == pytest.approx((low, high))
    assert accuracy_table.point_text(panel.points[0], "linear_10") == "91.0 ± 2.5"  # 4.303 · 1 / √3


def test_one_seed_has_no_interval_even_if_its_evaluation_has_draws(study_of):
    (panel,) = seed_means.panels(
        results.read_results(study_of("batch=64,128", accuracy=lambda cell: 0.9))
    )
    assert [accuracy_table.point_text(p, "linear_10") for p in panel.points] == ["90.0", "90.0"]


def test_diverged_and_missing_cells_are_listed_beside_the_mean(study_of):
    study = study_of("batch=64;seed=0,1,2,3", accuracy=by_seed(0.9, 0.9, 0, 0),
                     skip=["batch=64-seed=2", "batch=64-seed=3"])  # fmt: skip
    study.write_record(study.cells[2], {"exit": 80, "seconds": 1.0, "lines": []})
    (panel,) = seed_means.panels(results.read_results(study))
    expected = "90.0 ± 0.0, 1 of 4 diverged, 1 of 4 to come"
    assert accuracy_table.point_text(panel.points[0], "linear_10") == expected
    assert accuracy_table.point_text(None, "linear_10") == "–"


def test_cells_that_differ_in_devices_do_not_count_as_seeds(study_of):
    study = study_of("batch=64;devices=1,2;seed=0,1", accuracy=by_seed(0.8, 0.9))
    (panel,) = seed_means.panels(results.read_results(study))
    assert panel.points[0].by_seed("linear_10") == {0: 80.0, 1: 90.0}


def test_markdown_table_has_the_published_layout(study_of):
    study = study_of(
        "batch=64,256;epochs=4,8;lr_rule=linear,sqrt",
        accuracy=lambda cell: (cell.setting["epochs"] + (cell.setting["lr_rule"] == "sqrt")) / 10,
        skip=["batch=64-epochs=8-lr_rule=linear", "batch=64-epochs=8-lr_rule=sqrt"],
    )
    (panel,) = seed_means.panels(results.read_results(study))
    assert accuracy_table.markdown(panel, "linear_10").splitlines() == [
        "| batch \\ epochs (linear / sqrt) | 4 | 8 |",
        "|---|---|---|",
        "| 64 | 40.0 / 50.0 | to come |",
        "| 256 | 40.0 / 50.0 | 80.0 / 90.0 |",
    ]


def test_rule_differences_pair_seeds_and_skip_batches_with_equal_rates(study_of):
    values = {("linear", 0): 0.50, ("sqrt", 0): 0.51, ("linear", 1): 0.70, ("sqrt", 1): 0.73}
    study = study_of(
        "batch=64,128;lr_rule=linear,sqrt;seed=0,1,2",
        accuracy=lambda cell: values.get((cell.setting["lr_rule"], cell.setting["seed"]), 0.1),
        skip=["batch=64-lr_rule=sqrt-seed=2"],
    )
    (panel,) = seed_means.panels(results.read_results(study))
    differences = seed_means.rule_differences(panel, "linear_10", panel.lengths[0])
    assert list(differences) == [64]
    assert differences[64] == pytest.approx([1.0, 3.0])


def test_published_table_matches_table_b1():
    """Checks corners of arXiv 2002.05709, table B.1, and values where the better rule changes."""
    assert accuracy_table.PUBLISHED[256][0] == (57.5, 62.8)
    assert accuracy_table.PUBLISHED[256][3] == (66.6, 66.5)
    assert accuracy_table.PUBLISHED[4096][1] == (66.5, 66.8)
    assert accuracy_table.PUBLISHED[8192][3] == (69.0, 69.1)
    assert {len(row) for row in accuracy_table.PUBLISHED.values()} == {len(accuracy_table.EPOCHS)}


def test_another_config_is_refused_except_for_fields_that_change_no_number(study_of, config):
    study = study_of("batch=64")
    config.train.log_every = 3
    config.data.dir = "/elsewhere"
    assert study_folder.open_study(study.path, config, [], "").grids == ["batch=64"]
    config.eval.knn_k = 7
    config.optim.lr = 0.3
    with pytest.raises(
        Fault, match=r"eval\.knn_k: was 20, is now 7\n  optim\.lr: was 0\.005, is now 0\.3"
    ) as caught:
        study_folder.open_study(study.path, config, [], "")
    assert caught.value.code == BAD_CONFIG


def test_a_new_study_needs_a_grid(tmp_path, config):
    with pytest.raises(Fault, match="give --grid") as caught:
        study_folder.open_study(tmp_path, config, [], "")
    assert caught.value.code == MISSING_INPUT


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\xff", b'{"exit": "x", "lines": 3}', b"[" * 9999]
)
def test_damaged_files_of_a_cell_leave_it_unfinished(study_of, content):
    study = study_of("seed=0,1")
    cell, other = study.cells
    run = study.run_path(cell)
    for path in (study._record_path(cell), run / "metadata.json", run / "eval" / ".done"):
        path.write_bytes(content)
    (run / "eval" / "knn.json").write_bytes(content)
    assert study.record(cell) == {}
    assert study_folder.status(study, cell) == "unfinished"
    assert study_folder.status(study, other) == "done"
    assert [row.status for row in results.read_results(study)] == ["unfinished", "done"]
