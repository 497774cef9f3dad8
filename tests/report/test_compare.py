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
from ssl_jax.report import compare, files, groups


def light_run(folder: pathlib.Path, *, accuracy: float = 0.8, **sections) -> pathlib.Path:
    """A run with one kNN evaluation and without a sample."""
    write_run(folder)
    for file in ("linear_10.json", "sample.npz", "predictions.npz"):
        (folder / "eval" / file).unlink()
    results = {"simclr": {"accuracy": accuracy}, "raw pixels": {"accuracy": 0.5}}
    write_evaluation(folder, "knn", "knn", results, protocol={"k": 20, "seed": 1})
    return change_config(folder, **sections)


def seeds(tmp_path, name, accuracies, **sections):
    """Runs that differ in the seed."""
    return [
        light_run(tmp_path / f"{name}{i}", accuracy=a, **sections | {"train": {"seed": i} | extra})
        for i, a in enumerate(accuracies)
        for extra in [sections.get("train", {})]
    ]


def grouped(folders):
    return groups.group([files.read(folder) for folder in folders])


def page_of(folders, tmp_path) -> str:
    return compare.write([str(f) for f in folders], tmp_path / "out" / "c.html").read_text()


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path):
    runs = seeds(tmp_path, "a", [0.8, 0.9])
    runs += seeds(tmp_path, "b", [0.7], train={"batch_size": 64})
    found = grouped(runs)
    assert [len(one.runs) for one in found] == [2, 1]
    assert [one.name for one in found] == ["SimCLR · a0", "SimCLR · b0"]
    assert list(groups.config_differences(found)) == ["train.batch_size"]


def test_one_seed_twice_is_no_independent_sample(tmp_path):
    a, b = (light_run(tmp_path / name) for name in "ab")
    assert [len(one.runs) for one in grouped([a, b])] == [1, 1]


def test_runs_without_config_stand_alone(tmp_path):
    folders = [light_run(tmp_path / name) for name in "ab"]
    for folder in folders:
        (folder / "config.json").unlink()
    assert len(grouped(folders)) == 2


def test_names_are_told_apart_by_as_much_of_the_path_as_it_takes(tmp_path):
    runs = [light_run(tmp_path / f / "run") for f in "ab"]
    runs.append(light_run(tmp_path / "c", method={"name": "byol"}))
    runs.append(light_run(tmp_path / "d", finetune={"fraction": 0.1}))
    names = [one.name for one in grouped(runs)]
    assert names == ["SimCLR · a/run", "SimCLR · b/run", "BYOL", "SimCLR, fine-tuned"]


def test_interval_by_scipy():
    values = [71.0, 73.5, 70.2]
    found = groups.mean(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert found.value == pytest.approx(np.mean(values))
    assert found.half == pytest.approx((high - low) / 2)
    assert groups.mean([5.0]) == groups.Mean(5.0, None, 1)
    assert groups.mean([]) is None


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
def test_best_only_where_intervals_are_apart(means, best):
    assert groups.best([m and groups.Mean(*m, 3) for m in means]) == best


def test_page_marks_the_best_and_shows_what_differs(tmp_path):
    runs = seeds(tmp_path, "a", [0.80, 0.81, 0.80])
    runs += seeds(tmp_path, "b", [0.70, 0.71, 0.70], train={"batch_size": 64})
    html = page_of(runs, tmp_path)
    text = " ".join(Reader(html).words)
    half = groups.mean([80, 81, 80]).half
    assert f"80.3 ± {half:.1f}" in re.sub(r"\s+", " ", text)
    assert html.count('class="best"') == 1
    for words in ("6 runs · 2 settings", "train.batch_size", "0, 1, 2", "16,000", "images seen,"):
        assert words in text
    assert "train.seed" not in text
    assert html.count("raw pixels") == 1  # the same for all
    assert html.count("<img") == 2  # over steps, over images
    assert not re.search(r"(src|href)=.(?!data:|#)", html)


def test_other_protocols_are_told_and_never_best(tmp_path):
    runs = seeds(tmp_path, "a", [0.80, 0.81, 0.80])
    runs += seeds(tmp_path, "b", [0.70, 0.71, 0.70], train={"batch_size": 64})
    for folder in runs[:3]:
        file = folder / "eval" / "knn.json"
        found = json.loads(file.read_text())
        found["protocol"]["view"] = "12 px, seed 3"
        file.write_text(json.dumps(found))
    html = page_of(runs, tmp_path)
    assert 'class="best"' not in html
    assert "Differences of the protocols" in html
    assert "12 px" in html


def test_data_sets_have_tables_of_their_own(tmp_path):
    a = light_run(tmp_path / "a")
    b = light_run(tmp_path / "b", data={"source": "digits"})
    write_evaluation(a, "t", "knn", {"simclr": {"accuracy": 0.123}}, data="digits")
    text = page_of([a, b], tmp_path)
    cifar, digits = text.split("Evaluation on digits")
    assert "Evaluation on cifar10" in cifar
    assert "12.3" not in cifar
    assert "12.3" in digits
    assert "SimCLR on digits" in digits


def test_runs_of_every_state_and_method(tmp_path):
    """Unfinished, without evaluation, without logs, fine-tuned, hostile, twelve in all."""
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


def test_nothing_measured_is_said(tmp_path):
    folders = [light_run(tmp_path / name) for name in "ab"]
    for folder in folders:
        shutil.rmtree(folder / "eval")
        (folder / "metrics.jsonl").unlink()
    text = page_of(folders, tmp_path)
    assert "None of the runs is evaluated" in text
    assert "None of the runs has logged a step" in text
    assert "None but the seed" in text


def test_mistakes_are_faults(tmp_path):
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
def test_command_answers_a_mistake_in_one_line(arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "ssl_jax.report", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == USAGE
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
