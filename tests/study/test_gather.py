"""From the files of cells to rows, points and tables; against numbers worked by hand."""

import csv
import io

import pytest
from scipy import stats

from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, Fault
from ssl_jax.study import folder, gather, points, table


def by_seed(*fractions):
    """Accuracies of the seeds 0, 1, ..."""
    return lambda cell: fractions[cell.setting["seed"]]


def rows_of(study):
    return list(csv.DictReader(io.StringIO(gather.table(gather.rows(study)))))


def test_the_csv_has_a_row_for_every_cell_with_settings_numbers_and_protocol(study_of):
    study = study_of(
        "batch=64,128;epochs=4;lr_rule=linear,sqrt;seed=0",
        accuracy=lambda cell: 0.5 + cell.setting["batch"] / 1000,
        noise_scale=lambda cell: 123.4,
    )
    first, second, third, fourth = rows_of(study)
    assert first["cell"] == "batch=64-epochs=4-lr_rule=linear-seed=0"
    assert (first["length"], first["unit"], first["lr_rule"]) == ("4", "epochs", "linear")
    assert (first["base_lr"], first["lr"]) == ("0.01", "0.0025")  # 0.005 at 128
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


def test_other_fields_of_the_grid_are_columns(study_of):
    study = study_of("batch=64;optim.weight_decay=0.1,0.2")
    assert [row["optim.weight_decay"] for row in rows_of(study)] == ["0.1", "0.2"]


def test_a_cells_status_is_what_its_files_say(study_of):
    study = study_of("steps=5;seed=0,1,2,3", skip=["steps=5-seed=1", "steps=5-seed=2"])
    study.write_record(study.cells[1], {"exit": 80, "seconds": 1.0, "lines": []})
    study.run(study.cells[2]).mkdir(parents=True)
    (study.run(study.cells[3]) / "checkpoints" / "5" / "MANIFEST.json").unlink()
    states = [row["status"] for row in rows_of(study)]
    assert states == ["done", "diverged", "unfinished", "unfinished"]


def test_an_evaluation_of_another_step_is_not_done(study_of):
    study = study_of("steps=5")
    (study.run(study.cells[0]) / "eval" / ".done").write_text(
        '{"knn": {"step": 4}, "linear": {"step": 5}, "label_free": {"step": 5}}'
    )
    assert [row["status"] for row in rows_of(study)] == ["unfinished"]


def test_a_point_is_the_mean_over_seeds_with_students_interval(study_of):
    (panel,) = points.panels(
        gather.rows(study_of("batch=64;seed=0,1,2", accuracy=by_seed(0.90, 0.91, 0.92)))
    )
    mean = panel.points[0].mean("linear_10")
    low, high = stats.t.interval(0.95, 2, loc=91.0, scale=1 / 3**0.5)
    assert (mean.value - mean.half, mean.value + mean.half) == pytest.approx((low, high))
    assert table.written(panel.points[0], "linear_10") == "91.0 ± 2.5"  # 4.303 · 1 / √3


def test_one_seed_has_no_interval_though_its_evaluation_has_draws(study_of):
    (panel,) = points.panels(gather.rows(study_of("batch=64,128", accuracy=lambda cell: 0.9)))
    assert [table.written(p, "linear_10") for p in panel.points] == ["90.0", "90.0"]


def test_what_diverged_or_is_missing_is_told_beside_the_mean(study_of):
    study = study_of("batch=64;seed=0,1,2,3", accuracy=by_seed(0.9, 0.9, 0, 0),
                     skip=["batch=64-seed=2", "batch=64-seed=3"])  # fmt: skip
    study.write_record(study.cells[2], {"exit": 80, "seconds": 1.0, "lines": []})
    (panel,) = points.panels(gather.rows(study))
    expected = "90.0 ± 0.0, 1 of 4 diverged, 1 of 4 to come"
    assert table.written(panel.points[0], "linear_10") == expected
    assert table.written(None, "linear_10") == "–"


def test_devices_are_no_seeds(study_of):
    study = study_of("batch=64;devices=1,2;seed=0,1", accuracy=by_seed(0.8, 0.9))
    (panel,) = points.panels(gather.rows(study))
    assert panel.points[0].by_seed("linear_10") == {0: 80.0, 1: 90.0}


def test_the_text_has_the_published_layout(study_of):
    study = study_of(
        "batch=64,256;epochs=4,8;lr_rule=linear,sqrt",
        accuracy=lambda cell: (cell.setting["epochs"] + (cell.setting["lr_rule"] == "sqrt")) / 10,
        skip=["batch=64-epochs=8-lr_rule=linear", "batch=64-epochs=8-lr_rule=sqrt"],
    )
    (panel,) = points.panels(gather.rows(study))
    assert table.text(panel, "linear_10").splitlines() == [
        "| batch \\ epochs (linear / sqrt) | 4 | 8 |",
        "|---|---|---|",
        "| 64 | 40.0 / 50.0 | to come |",
        "| 256 | 40.0 / 50.0 | 80.0 / 90.0 |",
    ]


def test_differences_are_of_the_same_seed_and_not_where_the_rates_agree(study_of):
    values = {("linear", 0): 0.50, ("sqrt", 0): 0.51, ("linear", 1): 0.70, ("sqrt", 1): 0.73}
    study = study_of(
        "batch=64,128;lr_rule=linear,sqrt;seed=0,1,2",
        accuracy=lambda cell: values.get((cell.setting["lr_rule"], cell.setting["seed"]), 0.1),
        skip=["batch=64-lr_rule=sqrt-seed=2"],
    )
    (panel,) = points.panels(gather.rows(study))
    found = points.differences(panel, "linear_10", panel.lengths[0])
    assert list(found) == [64]
    assert found[64] == pytest.approx([1.0, 3.0])


def test_the_published_table_is_table_b1():
    """Values read off arXiv 2002.05709, table B.1, at its corners and where the rules cross."""
    assert table.PUBLISHED[256][0] == (57.5, 62.8)
    assert table.PUBLISHED[256][3] == (66.6, 66.5)
    assert table.PUBLISHED[4096][1] == (66.5, 66.8)
    assert table.PUBLISHED[8192][3] == (69.0, 69.1)
    assert {len(row) for row in table.PUBLISHED.values()} == {len(table.EPOCHS)}


def test_another_config_in_the_same_folder_is_refused_but_for_what_changes_no_number(
    study_of, config
):
    study = study_of("batch=64")
    config.train.log_every = 3
    config.data.dir = "/elsewhere"
    assert folder.open_study(study.path, config, [], "").grids == ["batch=64"]
    config.eval.knn_k = 7
    config.optim.lr = 0.3
    with pytest.raises(Fault, match=r"eval\.knn_k: 20 -> 7\n  optim\.lr: 0\.005 -> 0\.3") as caught:
        folder.open_study(study.path, config, [], "")
    assert caught.value.code == BAD_CONFIG


def test_a_new_study_needs_a_grid(tmp_path, config):
    with pytest.raises(Fault, match="give --grid") as caught:
        folder.open_study(tmp_path, config, [], "")
    assert caught.value.code == MISSING_INPUT
