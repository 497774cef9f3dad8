"""A run on text by the verbs: train, resume, evaluate without the text, report, export."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from tests_text import write_text

from ssl_jax import config as configuration
from ssl_jax import evaluate, parallel, train
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, USAGE, Fault
from ssl_jax.export.__main__ import export, parse_formats
from ssl_jax.jobs.stop import Stop
from ssl_jax.parallel import make_mesh
from ssl_jax.pretrained import backbone
from ssl_jax.report import page
from ssl_jax.rundir import facts, workdir
from ssl_jax.training import command

BATCH = 8
QUESTIONS = ": capital-of\n" + "".join(
    f"n{a} t{a} n{b} t{b}\n" for a in range(4) for b in range(4) if a != b
)


def make_config(folder, **changes):
    from configs import word2vec

    config = word2vec.get_config("bbc")
    config.data.update(dir=str(folder), chunk=24, min_count=1)
    config.model.width = 8
    config.train.update(batch_size=BATCH, steps=6, log_every=1, checkpoint_every=3)
    config.eval.update(knn_k=5, batch_size=16, analogy_file=str(folder / "q.txt"))
    config.eval.similarity_file = str(folder / "pairs.tsv")
    config.update_from_flattened_dict(changes)
    assert not configuration.problems(config)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("text")
    write_text(path)
    (path / "q.txt").write_text(QUESTIONS)
    (path / "pairs.tsv").write_text("n0\tt0\t9\nn1\tt1\t8\nn0\tt3\t1\nn2\tn3\t2\n")
    return path


def run(config, path, monkeypatch, devices=1, fsdp=1):
    mesh = make_mesh(jax.devices()[:devices], fsdp=fsdp)
    monkeypatch.setattr(parallel, "make_mesh", lambda **_: mesh)
    with workdir.open_workdir(path) as opened, Stop() as stop:
        command.check_config(config, opened, [])
        train.train(config, opened, stop)


def params(path):
    return backbone.modules_from_run(configuration.load(path), path)[0]


def read(path, name):
    return json.loads((path / "eval" / f"{name}.json").read_text())["results"]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        run(make_config(folder), path, patch)
    return path


def test_a_run_is_evaluated_and_reported(trained):
    knn, analogy = read(trained, "knn"), read(trained, "analogy")
    assert set(knn) == {"word2vec", "untrained encoder", "counts of 1,000 words"}
    assert knn["counts of 1,000 words"]["accuracy"] > 0.9  # the classes have words of their own
    assert analogy["word2vec"]["questions"] == 12
    assert analogy["word2vec"]["sections"]["capital-of"]["questions"] == 12
    assert read(trained, "similarity")["word2vec"]["pairs"] == 4
    neighbours = read(trained, "neighbours")["word2vec"]["neighbours"]
    assert all(word not in dict(near) for word, near in neighbours.items())
    assert (trained / "figures" / "analogies.png").exists()
    html = pathlib.Path(page.write(trained)).read_text()
    assert "Parallel analogies" in html
    assert "--format=word2vec" in html
    assert "passages / s" in html
    text = re.sub(r'(src|href)="[^"]*"|<style>.*?</style>', "", html, flags=re.S)
    assert not re.search(r"\bimages\b", text.replace("train_images", ""))


def test_a_resumed_run_has_the_same_bits(trained, folder, tmp_path, monkeypatch):
    other = tmp_path / "resumed"
    shutil.copytree(trained, other)
    newest = max((other / "checkpoints").iterdir(), key=lambda p: int(p.name))
    shutil.rmtree(newest)
    assert newest.name == "6"
    run(make_config(folder), other, monkeypatch)
    for a, b in zip(jax.tree.leaves(params(trained)), jax.tree.leaves(params(other)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("devices", "fsdp", "microbatch"), [(2, 1, 0), (2, 2, 4), (8, 8, 0)])
def test_devices_and_micro_batches_do_not_change_the_vectors(
    trained, folder, tmp_path, monkeypatch, devices, fsdp, microbatch
):
    changes = {"train.microbatch": microbatch, "parallel.fsdp": fsdp, "data.eval_split": ""}
    changes |= {"eval.protocols": (), "model.bn_group": BATCH // 4 if microbatch else 0}
    run(make_config(folder, **changes), tmp_path / "run", monkeypatch, devices, fsdp)
    for a, b in zip(
        jax.tree.leaves(params(trained)), jax.tree.leaves(params(tmp_path / "run")), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)


def test_other_words_are_refused_on_resuming(trained, folder, tmp_path, monkeypatch):
    changed, text = tmp_path / "changed", tmp_path / "text"
    shutil.copytree(trained, changed)
    shutil.copytree(folder, text)
    file = text / "train" / "a" / "x.txt"
    content = file.read_text()
    file.write_text(content.replace("n0", "t0", 1))  # as long as before
    with pytest.raises(Fault, match="such as a tokenizer or a vocabulary, differs") as refused:
        run(make_config(text), changed, monkeypatch)
    assert refused.value.code == BAD_DATA


def test_other_text_is_evaluated_with_the_words_of_the_run(trained, folder, tmp_path, capfd):
    other, copy = tmp_path / "other", tmp_path / "run"
    shutil.copytree(trained, copy)
    for split in ("train", "test"):
        for name, line in (("a", "n0 new n1 t0\n"), ("b", "w1 w2 new w3\n")):
            path = other / split / name / "x.txt"
            path.parent.mkdir(parents=True)
            path.write_text(line * 12)
    config = evaluate.config_of_run(copy)
    config.eval.protocols = ("knn",)
    data = config.data.copy_and_resolve_references()
    data.dir = str(other)
    evaluate.evaluate(config, copy, data)
    assert "5-NN" in capfd.readouterr().out
    assert (copy / "eval" / "transfer_text_other_knn.json").exists()
    known = facts.read(copy)
    assert "new" not in known["words"].tolist()


def test_the_vectors_of_a_run_are_evaluated_alone_with_its_words(trained, tmp_path):
    text = tmp_path / "text" / "train" / "a" / "x.txt"
    text.parent.mkdir(parents=True)
    text.write_text("quite other words\n" * 9)
    changes = {"data": {"dir": str(tmp_path / "text")}, "eval": {"baselines": False}}
    config = evaluate.config_for_weights(tmp_path / "alone", str(trained), changes)
    assert not {"analogy", "similarity", "neighbours"} & set(config.eval.protocols)
    mesh = make_mesh(jax.devices()[:1])
    subject = evaluate._subject(config, tmp_path / "alone", mesh, transfer=False)
    assert subject.facts["words"].tolist() == facts.read(trained)["words"].tolist()


def test_questions_are_answered_without_the_text(trained, tmp_path, capfd):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    config = evaluate.config_of_run(copy)
    config.data.dir = str(tmp_path / "gone")
    config.eval.protocols = ("analogy", "neighbours")
    evaluate.evaluate(config, copy)
    assert "analogies" in capfd.readouterr().out
    assert read(copy, "analogy") == read(trained, "analogy")


def test_a_missing_file_of_questions_is_found_before_training(folder, tmp_path, monkeypatch):
    config = make_config(folder, **{"eval.analogy_file": str(folder / "none.txt")})
    with pytest.raises(Fault, match=r"eval\.analogy_file=.*no such file") as refused:
        run(config, tmp_path / "run", monkeypatch)
    assert refused.value.code == MISSING_INPUT
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parallel.fsdp": 3, "train.batch_size": 12}, r"parallel\.fsdp=3 does not divide a table"),
        ({"eval.neighbours_of": ("n0", "nowhere")}, "not in the vocabulary: nowhere"),
        ({"model.dtype": "bfloat16"}, r"model\.dtype='float32'"),
    ],
)
def test_mistakes_are_found_before_training(folder, tmp_path, monkeypatch, change, message):
    config = make_config(folder, **change)
    fsdp = config.parallel.fsdp
    with pytest.raises(Fault, match=message):
        run(config, tmp_path / "run", monkeypatch, devices=2 * fsdp, fsdp=fsdp)
    assert not (tmp_path / "run" / "checkpoints").exists()


def parse(data):
    """An independent reader of the binary format."""
    head, rest = data.split(b"\n", 1)
    count, width = map(int, head.split())
    found = {}
    for _ in range(count):
        word, rest = rest.split(b" ", 1)
        found[word.decode()] = np.frombuffer(rest[: 4 * width], "<f4")
        assert rest[4 * width : 4 * width + 1] == b"\n"
        rest = rest[4 * width + 1 :]
    assert not rest
    return found


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    with Stop() as stop:
        export(trained, parse_formats(["word2vec"]), out, stop, head=False, license="")
    return out / "word2vec"


def expected(trained):
    words = facts.read(trained)["words"]
    return dict(zip(words.tolist(), np.asarray(params(trained)["encoder"]["table"]), strict=False))


def test_export_holds_the_vectors_of_the_checkpoint(trained, exported):
    vectors = expected(trained)
    binary = parse((exported / "vectors.bin").read_bytes())
    head, *lines = (exported / "vectors.txt").read_text().splitlines()
    assert head == f"{len(vectors)} 8"
    text = {line.split()[0]: np.array(line.split()[1:], np.float32) for line in lines}
    assert list(text) == list(binary) == list(vectors)
    for word, vector in vectors.items():
        np.testing.assert_array_equal(text[word], vector)
        np.testing.assert_array_equal(binary[word], vector)


@pytest.mark.filterwarnings("ignore")  # of gensim's imports
@pytest.mark.parametrize(("file", "binary"), [("vectors.txt", False), ("vectors.bin", True)])
def test_gensim_reads_the_export(trained, exported, file, binary):
    models = pytest.importorskip("gensim.models")
    loaded = models.KeyedVectors.load_word2vec_format(str(exported / file), binary=binary)
    vectors = expected(trained)
    assert loaded.index_to_key == list(vectors)
    np.testing.assert_array_equal(loaded.vectors, np.stack(list(vectors.values())))


def test_other_formats_name_the_one_of_words(trained, tmp_path):
    with Stop() as stop:
        with pytest.raises(Fault, match="--format=word2vec") as refused:
            export(trained, ["npz"], tmp_path, stop, head=False, license="")
        assert refused.value.code == USAGE
        with pytest.raises(Fault, match="alone"):
            export(trained, ["word2vec", "npz"], tmp_path, stop, head=False, license="")
