import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from test_page import ROOT, Reader
from written_run import change_config, write_evaluation, write_run

from ssl_jax.errors import CANNOT_CREATE, MISSING_INPUT, USAGE, Fault
from ssl_jax.report import compare, run_files, seed_groups


def light_run(folder: pathlib.Path, *, accuracy: float = 0.8, **sections) -> pathlib.Path:
    """Writes a run with one kNN evaluation and without a sample."""
    write_run(folder)
    for file in ("linear_10.json", "sample.npz", "predictions.npz"):
        (folder / "eval" / file).unlink()
    results = {"simclr": {"accuracy": accuracy}, "raw pixels": {"accuracy": 0.5}}
    write_evaluation(folder, "knn", "knn", results, protocol={"k": 20, "seed": 1})
    return change_config(folder, **sections)


def write_seeds(tmp_path, name, accuracies, **sections):
    """Writes runs that differ only in the seed."""
    return [
        light_run(tmp_path / f"{name}{i}", accuracy=a, **sections | {"train": {"seed": i} | extra})
        for i, a in enumerate(accuracies)
        for extra in [sections.get("train", {})]
    ]


def grouped(folders):
    return seed_groups.group([run_files.read_run(folder) for folder in folders])


def page_of(folders, tmp_path) -> str:
    return compare.write([str(f) for f in folders], tmp_path / "out" / "c.html").read_text()


def test_runs_that_differ_only_in_the_seed_are_one_group(tmp_path):
    runs = write_seeds(tmp_path, "a", [0.8, 0.9])
    runs += write_seeds(tmp_path, "b", [0.7], train={"batch_size": 64})
    groups = grouped(runs)
    assert [len(group.runs) for group in groups] == [2, 1]
    assert [group.name for group in groups] == ["SimCLR · a0", "SimCLR · b0"]
    assert list(seed_groups.config_differences(groups)) == ["train.batch_size"]


def test_a_run_from_before_a_hyperparameter_existed_is_grouped_by_its_old_value(tmp_path):
    runs = write_seeds(tmp_path, "a", [0.8, 0.9, 0.7])
    for path, fields in zip(runs, ({}, {"scale": 1.0}, {"scale": 2.0}), strict=True):
        change_config(path, method={"name": "simclr", **fields})
    groups = grouped(runs)
    assert [len(group.runs) for group in groups] == [2, 1]
    assert seed_groups.config_differences(groups) == {"method.scale": ["1", "2"]}


def test_a_repeated_seed_starts_a_group_of_its_own(tmp_path):
    a, b = (light_run(tmp_path / name) for name in "ab")
    assert [len(group.runs) for group in grouped([a, b])] == [1, 1]


def test_a_run_without_config_is_a_group_of_its_own(tmp_path):
    folders = [light_run(tmp_path / name) for name in "ab"]
    for folder in folders:
        (folder / "config.json").unlink()
    assert len(grouped(folders)) == 2


def test_equal_names_are_extended_by_parts_of_the_path(tmp_path):
    runs = [light_run(tmp_path / f / "run") for f in "ab"]
    runs.append(light_run(tmp_path / "c", method={"name": "byol"}))
    runs.append(light_run(tmp_path / "d", finetune={"fraction": 0.1}))
    runs.append(light_run(tmp_path / "e", pretrained={"origin": "tuned, step 9"}))
    names = [group.name for group in grouped(runs)]
    assert names.pop() == "tuned, step 9"
    assert names == ["SimCLR · a/run", "SimCLR · b/run", "BYOL", "SimCLR, fine-tuned"]


def test_config_differences_ignore_the_training_fields_of_imported_weights(tmp_path):
    runs = [light_run(tmp_path / "a"), light_run(tmp_path / "b", pretrained={"path": "w"})]
    runs[1] = change_config(runs[1], optim={"lr": 0.3}, model={"name": "resnet50"})
    fields = seed_groups.config_differences(grouped(runs))
    assert "optim.lr" not in fields
    assert fields["model.name"] == ["resnet10", "resnet50"]
    assert fields["train.batch_size"] == ["32", "–"]


def test_interval_agrees_with_scipy():
    values = [71.0, 73.5, 70.2]
    mean = seed_groups.mean(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert mean.value == pytest.approx(np.mean(values))
    assert mean.half == pytest.approx((high - low) / 2)
    assert seed_groups.mean([5.0]) == seed_groups.Mean(5.0, None, 1)
    assert seed_groups.mean([]) is None


@pytest.mark.parametrize(
    ("means", "best"),
    [
        ([(70, 1), (75, 1)], 1),
        ([(70, 3), (75, 3)], None),
        ([(70, None), (75, 1)], None),
        ([(80, 1), (70, 1), None], 0),
        ([(80, 1)], None),
    ],
)
def test_best_needs_an_interval_above_all_others(means, best):
    assert seed_groups.best([m and seed_groups.Mean(*m, 3) for m in means]) == best


def test_page_marks_the_best_and_shows_config_differences(tmp_path):
    runs = write_seeds(tmp_path, "a", [0.80, 0.81, 0.80])
    runs += write_seeds(tmp_path, "b", [0.70, 0.71, 0.70], train={"batch_size": 64})
    html = page_of(runs, tmp_path)
    text = " ".join(Reader(html).words)
    half = seed_groups.mean([80, 81, 80]).half
    assert f"80.3 ± {half:.1f}" in re.sub(r"\s+", " ", text)
    assert html.count('class="best"') == 1
    for words in (
        "6 runs · 2 settings",
        "train.batch_size",
        "0, 1, 2",
        "16,000",
        "over images seen",
    ):
        assert words in text
    assert "train.seed" not in text
    assert html.count("raw pixels") == 1  # one row, because all groups agree
    assert html.count("<img") == 2  # over steps, over images
    assert not re.search(r"(src|href)=.(?!data:|#)", html)


def test_different_protocols_are_listed_and_have_no_best(tmp_path):
    runs = write_seeds(tmp_path, "a", [0.80, 0.81, 0.80])
    runs += write_seeds(tmp_path, "b", [0.70, 0.71, 0.70], train={"batch_size": 64})
    for folder in runs[:3]:
        file = folder / "eval" / "knn.json"
        evaluation = json.loads(file.read_text())
        evaluation["protocol"]["view"] = "12 px, seed 3"
        file.write_text(json.dumps(evaluation))
    html = page_of(runs, tmp_path)
    assert 'class="best"' not in html
    assert "Differences of the protocols" in html
    assert "12 px" in html


def test_each_data_set_has_its_own_table(tmp_path):
    a = light_run(tmp_path / "a")
    b = light_run(tmp_path / "b", data={"source": "digits"})
    write_evaluation(a, "t", "knn", {"simclr": {"accuracy": 0.123}}, data="digits")
    text = page_of([a, b], tmp_path)
    cifar, digits = text.split("Evaluation on digits")
    assert "Evaluation on cifar10" in cifar
    assert "12.3" not in cifar
    assert "12.3" in digits
    assert "SimCLR on digits" in digits


def test_runs_in_any_state_can_be_compared(tmp_path):
    """Compares twelve runs: with missing files, fine-tuned, imported, with hostile names."""
    folders = [light_run(tmp_path / f"m{i}", method={"name": f"m{i}"}) for i in range(8)]
    shutil.rmtree(folders[0] / "eval")
    (folders[1] / "metrics.jsonl").unlink()
    (folders[2] / "metadata.json").unlink()
    (folders[3] / "config.json").unlink()
    folders.append(light_run(tmp_path / "tuned", finetune={"pretrained": "<script>"}))
    folders.append(light_run(tmp_path / "x", method={"name": "<script>alert(1)</script> $x_{$"}))
    folders.append(light_run(tmp_path / "y", data={"source": "<b>"}, model={"<i>": "&"}))
    folders.append(light_run(tmp_path / "z", pretrained={"origin": "w <u>", "path": "w"}))
    html = page_of(folders, tmp_path)
    read = Reader(html)
    assert not {"script", "b", "u"} & {tag for tag, _ in read.tags}
    text = " ".join(read.words)
    assert "<script>alert(1)</script>" in text
    assert "not evaluated" in text or "–" in text


def test_page_says_that_nothing_was_measured(tmp_path):
    folders = [light_run(tmp_path / name) for name in "ab"]
    for folder in folders:
        shutil.rmtree(folder / "eval")
        (folder / "metrics.jsonl").unlink()
    text = page_of(folders, tmp_path)
    assert "None of the runs is evaluated" in text
    assert "None of the runs has logged a step" in text
    assert "differ at most in the seed" in text


def test_wrong_arguments_raise_faults(tmp_path):
    a, b = (str(light_run(tmp_path / name)) for name in "ab")
    for folders, out, code in (
        ([a], "c.html", USAGE),
        ([a, f"{a}/"], "c.html", USAGE),
        ([a, str(tmp_path / "nowhere")], "c.html", MISSING_INPUT),
        ([a, b], ".", CANNOT_CREATE),
    ):
        with pytest.raises(Fault) as fault:
            compare.write(folders, tmp_path / out)
        assert fault.value.code == code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--workdir=RUN"),
        (["--workdir=a", "--workdirs=b,c"], "--workdir=RUN"),
        (["--workdir=a", "--out=c.html"], "--out"),
        (["--workdirs=a"], "two runs or more"),
    ],
)
def test_command_reports_wrong_arguments_in_one_line(arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "ssl_jax.report", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == USAGE
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
