"""Damaged and hostile side files of a run: no reader raises anything but a Fault."""

import json
import shutil

import numpy as np
import pytest
from test_page import Reader
from written_run import write_run

from ssl_jax.errors import Fault
from ssl_jax.evals import done
from ssl_jax.evals import files as eval_files
from ssl_jax.jobs import heartbeat, run_history
from ssl_jax.report import compare, model_card, page, run_files
from ssl_jax.rundir import metrics

MUTATIONS = {
    "empty": b"",
    "binary": b"\xff\xfe\x00\x80",
    "not UTF-8": b'{"step": 1, "results": {"a": "\xff"}}',
    "null": b"null",
    "list": b'[1, {"step": 2}]',
    "number": b"7",
    "huge number": b'{"step": 1' + b"0" * 5000 + b', "accuracy": 1e999}',
    "deep": b"[" * 100_000,
    "deep but closed": b'{"results": ' + b"[" * 400 + b"]" * 400 + b"}",
    "NaN": b'{"step": NaN, "loss": Infinity, "results": {"a": {"accuracy": NaN}}, "protocol": NaN}',
    "surrogate": b'{"results": {"\\ud800": {"accuracy": 0.5}}, "evaluation": "\\ud800\\u001b[2J"}',
    "wrong types": b'{"step": "x", "results": {"a": 3, "b": {"accuracy": true, "draws": 4}},'
    b' "protocol": 5, "evaluation": [], "data": 1, "lives": 4, "phases": 1, "started": "now",'
    b' "method": 1, "model": [], "train": "x", "pretrained": 2, "knn": 3}',
    "wrong fits": b'{"evaluation": "linear", "results": {"a": {"accuracy": 0.5, "converged": [],'
    b' "iterations": {"x": 1}, "gradient_norm": [null, "x", {}], "lr_at_edge": "yes"},'
    b' "\\ud800<b>": {"accuracy": [0.5, 1], "iterations": [1, 2], "converged": false,'
    b' "lr_at_edge": true, "held_out_accuracy": [null, []]}, "c": {"converged": false}}}',
    "wrong lists": b'{"results": {"a": {"shots": [[1], {}], "accuracy": [true, 1e308]}},'
    b' "evaluation": "few_shot", "protocol": {"labels_per_class": {"x": []}, "draws": "many"},'
    b' "method": {"name": []}, "model": {"name": 1, "width": "wide"},'
    b' "train": {"batch_size": [], "seed": {}}, "train_images": true,'
    b' "lives": [1, {"ended": []}]}',
}  # fmt: skip
SIDE_FILES = [
    *("metadata.json", "eval/knn.json", "eval/few_shot.json", "config.json", "metrics.jsonl"),
    *("eval/.done", "heartbeat/0.json", "goodput.json", "figures/pictures.json"),
    *("eval/sample.npz", "eval/predictions.npz"),
]
DRAWING = (page._training, *(part for part in page.SECTIONS if part.__name__.endswith("_section")))


def mutations():
    """Returns the mutations, and a torn and an intact line of metrics."""
    row = json.dumps({"step": 3, "loss": 1.5}).encode()
    return MUTATIONS | {"torn": row[:-4], "valid": row, "line of zeros": b"\x00" * 64}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "run")
    (folder / "eval" / "sample.npz").unlink()  # drawing it takes seconds
    for name in ("heartbeat", "figures"):
        (folder / name).mkdir()
    return folder


def read_everything(folder):
    """Calls the readers of all side files, as report, compare, export and a resume do."""
    heartbeat.read(folder, 0)
    run_history.read(folder)
    done._read(folder)
    eval_files.read(folder, ["knn", "few_shot"])
    run = run_files.read_run(folder)
    for part in page.SECTIONS:
        if part not in DRAWING:
            part(run).encode()
    markdown = {"name": "x", "license": "", "usage": "x", "facts": {}}
    model_card.markdown(run, **markdown).encode()
    groups = compare.seed_groups.group([run, run_files.read_run(folder.parent / "run")])
    for part in (compare._evaluations, compare._runs, compare._configs, compare._protocols):
        part(groups).encode()
    return run


@pytest.mark.parametrize("name", SIDE_FILES)
def test_no_mutation_of_a_side_file_gives_a_traceback(intact, name):
    path = intact / name
    before = path.read_bytes() if path.exists() else None
    try:
        for kind, content in mutations().items():
            path.write_bytes(content)
            try:
                run = read_everything(intact)
            except Fault as fault:
                assert name == "config.json", kind
                assert "config.json: not JSON" in str(fault)  # noqa: PT017
                continue
            assert run.method == "simclr" or name == "config.json"
            assert all(isinstance(row["step"], int) for row in run.metrics)
    finally:
        path.unlink() if before is None else path.write_bytes(before)


@pytest.mark.parametrize("content", mutations().values(), ids=mutations())
def test_a_resume_goes_on_after_any_line_of_metrics(tmp_path, content):
    rows = [b'{"step": 1, "loss": 2.0}', content, b'{"step": 2, "loss": 1.0}', b""]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows))
    with metrics.MetricWriter(tmp_path, resume_step=2, tensorboard=False) as writer:
        writer.write(3, {"loss": 0.5})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_booleans_and_values_beyond_float32_are_no_metrics(tmp_path):
    lines = ['{"step": 1, "loss": true}', '{"step": 2, "loss": 1e39}', '{"step": 3, "loss": NaN}']
    lines += ['{"step": 4, "loss": -2}', '{"step": true, "loss": 5}', '{"step": 1.5, "loss": 5}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    steps, values = run_files.metric_series(run_files.read_run(tmp_path), "loss")
    assert (steps.tolist(), values.tolist()) == ([4], [-2])


@pytest.mark.parametrize(
    "damage",
    [
        {"features": np.ones((30, 8), int)},
        {"features": np.full((30, 8), np.nan, np.float32)},
        {"label": np.zeros(29, np.int32)},
        {"image": np.zeros((30, 8, 8, 3), np.float32)},
        {"saliency": np.ones((31, 4, 4), np.float16)},
        {"classes": np.zeros(2)},
        {"label": np.array([{}] * 30)},
    ],
)
def test_a_sample_whose_arrays_do_not_fit_is_ignored(finished_run, damage, caplog):
    path = finished_run / "eval" / "sample.npz"
    with np.load(path) as arrays:
        arrays = dict(arrays)
    np.savez(path, **arrays | damage)
    assert run_files.read_run(finished_run).sample == {}
    assert [record.message.count("sample.npz") for record in caplog.records] == [1]


def test_a_report_writes_through_no_link(intact, tmp_path):
    folder, host = tmp_path / "run", tmp_path / "host"
    shutil.copytree(intact, folder)
    host.mkdir()
    victims = [host / name for name in ("page", "picture")]
    for victim in victims:
        victim.write_text("precious")
    (folder / "report.html").symlink_to(victims[0])
    (folder / "figures" / "curves.png").symlink_to(victims[1])
    (folder / "figures" / "views.png").symlink_to(victims[1])  # would be published in the page
    text = page.write(folder).read_text()
    assert [victim.read_text() for victim in victims] == ["precious"] * 2
    assert not (folder / "report.html").is_symlink()
    assert not (folder / "figures" / "curves.png").is_symlink()
    assert "No picture of the views exists" in text
    shutil.rmtree(folder / "figures")
    (folder / "figures").symlink_to(host)
    with pytest.raises(Fault, match=r"figures: it is a link out of"):
        page.write(folder)
    assert sorted(path.name for path in host.iterdir()) == ["page", "picture"]


def test_a_page_shows_no_folder_of_the_machine_and_no_control_character(finished_run):
    (finished_run / "checkpoints").mkdir()
    (finished_run / "eval" / "sample.npz").unlink()
    command = "python -m ssl_jax.train --config=/home/ada/my.py:x '--workdir=/home/ada/my runs/a'"
    metadata = {"command": command, "device": "\x1b[2Jcpu\u202e", "file": "~/data/of ada"}
    (finished_run / "metadata.json").write_text(json.dumps(metadata))
    page_text = page.write(finished_run).read_text()
    assert "\x1b" not in page_text
    text = " ".join(Reader(page_text).words)
    for words in ("/home", "ada/", "~/", str(finished_run.parent)):
        assert words not in text
    assert "--config=my.py:x --workdir=a" in text
    assert "\\x1b[2Jcpu\\u202e" in text
