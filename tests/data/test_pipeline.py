"""The pipeline on synthetic sources. Tests of the order replace the augmentation."""

import dataclasses
import hashlib
import itertools
import logging
import subprocess
import sys
import threading

import numpy as np
import pytest

from ssl_jax.data import pipeline, sources
from ssl_jax.data.source import Source, image_record
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, IO_ERROR, Fault
from ssl_jax.inputs.image.make import input_from_views
from ssl_jax.inputs.image.recipes import RECIPES
from ssl_jax.inputs.image.views import Decisions, View

BAD = (3, 4, 17)
PAIR = (View(size=8), View(size=8))


def synthetic(size, bad=(), error=ValueError):
    """Returns a source of images of several shapes, and the list of the indices it has loaded.

    The first pixel of an image holds its index.
    """
    loads, lock = [], threading.Lock()

    def load(index):
        with lock:
            loads.append(index)
        if index in bad:
            raise error(f"damaged {index}")
        image = np.random.default_rng(index).integers(0, 256, (9 + index % 5, 12, 3), np.uint8)
        image[0, 0] = index % 256
        return {"image": image}, {"label": index % 10}

    source = Source(
        name="synthetic",
        size=size,
        record=image_record(3),
        load=load,
        describe="file {}".format,
        class_names={"label": tuple("abcdefghij")},
        label_field="label",
    )
    return source, loads


@pytest.fixture
def first_pixel_only(monkeypatch):
    """Replaces the views by the first pixel, so that tests of the order are fast."""

    def make(views, *, seed, placement):
        def augment(image, epoch, index):
            return {"views": image[:1, :1, :1], "epoch": epoch, "augmented_as": index}

        return augment

    monkeypatch.setattr("ssl_jax.inputs.image.host.make", make)


def train(source, *, views=PAIR, placement="device", seed=1, **options):
    defaults = {"batch_size": 8, "start_step": 0, "num_steps": 4}
    example_input = input_from_views(views, seed=seed, placement=placement)
    return pipeline.train_batches(source, example_input, seed=seed, **{**defaults, **options})


def column(batches, key):
    return np.concatenate([batch[key] for batch in batches])


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize(("size", "batch_size"), [(37, 8), (8, 8), (40, 8), (9, 8)])
def test_every_example_occurs_once_per_epoch(first_pixel_only, size, batch_size):
    source, _ = synthetic(size)
    steps = pipeline.total_steps(size, batch_size, 3)
    batches = list(train(source, batch_size=batch_size, num_steps=steps))
    assert len(batches) == steps
    index = column(batches, "index")[: 3 * size].reshape(3, size)
    epoch = column(batches, "epoch")[: 3 * size].reshape(3, size)
    for e in range(3):
        assert sorted(index[e]) == list(range(size))
        assert (epoch[e] == e).all()
    assert not (index[0] == index[1]).all()
    indices = column(batches, "index")
    np.testing.assert_array_equal(column(batches, "views")[:, 0, 0, 0], indices)
    np.testing.assert_array_equal(column(batches, "label"), indices % 10)


def test_batches_have_the_shipped_types_and_shapes():
    source, loads = synthetic(20)
    (batch,) = train(source, num_steps=1)
    assert len(loads) == 8  # one per example, not per view
    decisions = batch.pop("decisions")
    assert decisions.shape[:2] == (8, 2)
    assert decisions.dtype == np.float32
    kinds = {key: (value.dtype.name, value.shape) for key, value in batch.items()}
    assert kinds == {
        "views": ("uint8", (8, 2, 8, 8, 3)),
        "index": ("int64", (8,)),
        "label": ("int32", (8,)),
    }
    (batch,) = train(source, num_steps=1, placement="host")
    assert batch["views"].dtype == np.float32
    assert set(batch) == {"views", "index", "label"}


@pytest.mark.parametrize(("placement", "kind"), [("device", "uint8"), ("host", "float32")])
def test_local_views_have_their_own_arrays(placement, kind):
    source, loads = synthetic(20)
    views = (View(size=8), *[View(size=5, crop_area=(0.1, 0.4))] * 3)
    (batch,) = train(source, views=views, num_steps=1, placement=placement)
    assert len(loads) == 8  # one per example, not per view
    kinds = {key: (value.dtype.name, value.shape) for key, value in batch.items()}
    decisions = {
        "decisions": ("float32", (8, 1, len(Decisions._fields))),
        "local_decisions": ("float32", (8, 3, len(Decisions._fields))),
    }
    assert kinds == {
        "views": (kind, (8, 1, 8, 8, 3)),
        "local_views": (kind, (8, 3, 5, 5, 3)),
        "index": ("int64", (8,)),
        "label": ("int32", (8,)),
        **(decisions if placement == "device" else {}),
    }


def test_order_depends_on_the_seed(first_pixel_only):
    source, _ = synthetic(50)
    orders = [column(train(source, seed=s, num_steps=6), "index").tolist() for s in (0, 1, 0)]
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


def test_order_of_the_first_batch_never_changes(first_pixel_only):
    source, _ = synthetic(1000)
    index = column(train(source, batch_size=64, seed=42, num_steps=1), "index")
    digest = hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "91b1672d5dc7bf3b"


@pytest.mark.parametrize("placement", ["device", "host"])
def test_late_start_gives_the_same_batches(placement):
    source, _ = synthetic(21)
    options = {"placement": placement, "num_steps": 7, "views": RECIPES["digits"]}
    whole = list(train(source, **options))
    for start in (1, 5, 7):
        assert_equal(list(train(source, start_step=start, **options)), whole[start:])


def test_late_start_loads_no_skipped_example(first_pixel_only):
    source, loads = synthetic(1000)
    step = 10**12
    batches = list(train(source, start_step=step, num_steps=step + 3))
    assert len(loads) == 24
    assert sorted(loads) == sorted(column(batches, "index"))
    assert (column(batches, "epoch") == step * 8 // 1000).all()


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("bad", [(), BAD])
def test_rows_of_all_hosts_form_the_batch_of_one_host(hosts, bad):
    def run(host):
        options = {"on_bad_example": "quarantine", "max_bad": 0.5, "views": RECIPES["digits"]}
        return list(train(synthetic(21, bad)[0], host=host, num_steps=6, **options))

    parts = [run((process, hosts)) for process in range(hosts)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, run((0, 1)))


def test_quarantine_takes_the_next_readable_example(first_pixel_only, caplog):
    source, _ = synthetic(21, BAD)
    expected = column(train(synthetic(21)[0], num_steps=21), "index")
    batches = train(source, num_steps=21, on_bad_example="quarantine", max_bad=3 / 21)
    seen = list(batches)
    replaced = np.select([np.isin(expected, (3, 4)), expected == 17], [5, 18], expected)
    np.testing.assert_array_equal(column(seen, "index"), replaced)
    np.testing.assert_array_equal(column(seen, "views")[:, 0, 0, 0], replaced)
    np.testing.assert_array_equal(column(seen, "label"), replaced % 10)
    # A batch may hold the replacement twice. The random decisions are those of the unreadable
    # example, so that the two views differ.
    np.testing.assert_array_equal(column(seen, "augmented_as"), expected)
    assert batches.bad == {i: f"damaged {i}" for i in BAD}
    assert sorted(r.getMessage() for r in caplog.records if r.levelno == logging.WARNING) == sorted(
        f"unreadable, put into quarantine: file {i}: damaged {i}" for i in BAD
    )


def test_quarantine_continues_at_the_first_example(first_pixel_only):
    source, _ = synthetic(8, (7,))
    batches = list(train(source, on_bad_example="quarantine", max_bad=0.2))
    assert set(column(batches, "index")) == set(range(7))


def assert_fault(batches, code, pattern):
    with pytest.raises(Fault, match=pattern) as caught:
        list(batches)
    assert caught.value.code == code
    assert "tensorflow" not in str(caught.value)


def test_too_many_unreadable_examples_stop_the_run(first_pixel_only):
    options = {"on_bad_example": "quarantine", "num_steps": 30}
    pattern = "^3 of 21 examples are unreadable.*file .*damaged"
    assert_fault(train(synthetic(21, BAD)[0], max_bad=0.1, **options), BAD_DATA, pattern)
    everything = synthetic(21, range(21))[0]
    assert_fault(
        train(everything, max_bad=1.0, **options), BAD_DATA, "no example of synthetic is readable"
    )


def test_a_small_data_set_may_have_five_unreadable_examples(first_pixel_only):
    options = {"on_bad_example": "quarantine", "num_steps": 9}
    batches = train(synthetic(65, range(5))[0], **options)
    assert set(column(batches, "index")) == set(range(5, 65))
    assert set(batches.bad) == set(range(5))
    pattern = (
        r"^6 of 65 examples are unreadable, and data\.max_bad=0\.001 allows 5; .* raise "
        r"--config\.data\.max_bad\. `ssl-jax preview --check` lists all"
    )
    assert_fault(train(synthetic(65, range(6))[0], **options), BAD_DATA, pattern)


def test_unreadable_example_stops_the_run_by_default(first_pixel_only):
    order = column(train(synthetic(21)[0], num_steps=2), "index")
    first = int(order[11])
    batches = train(synthetic(21, (first,))[0])
    np.testing.assert_array_equal(next(batches)["index"], order[:8])
    assert_fault(
        batches, BAD_DATA, f"^file {first}: damaged {first}.*on_bad_image=quarantine.*--check"
    )


@pytest.mark.parametrize("on_bad_example", ["stop", "quarantine"])
def test_other_errors_keep_their_type(first_pixel_only, on_bad_example):
    def full(message):
        return Fault(message, IO_ERROR)

    for batches in (
        train(synthetic(21, BAD, full)[0], on_bad_example=on_bad_example),
        evaluate(synthetic(21, BAD, full)[0], on_bad_example=on_bad_example),
    ):
        assert_fault(batches, IO_ERROR, "^damaged")
    with pytest.raises(ZeroDivisionError, match="damaged"):
        list(train(synthetic(21, BAD, ZeroDivisionError)[0], on_bad_example=on_bad_example))


def test_too_few_examples_and_indivisible_batches_are_refused():
    source, _ = synthetic(48)
    with pytest.raises(Fault, match=r"48 examples < batch 64 .*batch_size") as caught:
        train(source, batch_size=64)
    assert caught.value.code == BAD_DATA
    for call in (train, evaluate):
        with pytest.raises(Fault, match=r"10 is not divisible by 4 .*: 8, 12") as caught:
            call(source, batch_size=10, host=(0, 4))
        assert caught.value.code == BAD_CONFIG


def test_total_steps_rounds_up():
    assert pipeline.total_steps(50000, 512, 100) == 9766
    assert pipeline.total_steps(512, 512, 3) == 3


def test_total_steps_takes_epochs_as_decimal_numbers():
    assert pipeline.total_steps(50_000, 500, 1.1) == 110  # as floats: 110.00000000000001
    for tenths in range(1, 200):
        for size, batch_size in ((50_000, 500), (1_281_167, 4096), (1297, 64)):
            expected = -(-tenths * size // (10 * batch_size))
            assert pipeline.total_steps(size, batch_size, tenths / 10) == expected


def evaluate(source, *, size=8, crop=1.0, **options):
    example_input = input_from_views((View(size=size),), seed=0, crop=crop)
    return pipeline.eval_batches(source, example_input, **{"batch_size": 8, **options})


def test_eval_batches_are_in_index_order_and_padded():
    source, loads = synthetic(21)
    batches = list(evaluate(source))
    assert column(batches, "index").tolist() == [*range(21), -1, -1, -1]
    assert column(batches, "mask").tolist() == [True] * 21 + [False] * 3
    assert column(batches, "label").tolist() == [i % 10 for i in range(21)] + [-1] * 3
    image = column(batches, "input")
    assert image.dtype == np.uint8
    assert image.shape == (24, 8, 8, 3)
    assert not image[21:].any()
    assert sorted(loads) == list(range(21))


def test_eval_batches_show_the_centre(tmp_path):
    from ssl_jax.inputs.image.host import center_view

    source = sources.open_source("digits", data_dir="", split="test")
    (batch,) = evaluate(source, indices=[7, 400], batch_size=2)
    for row, index in enumerate((7, 400)):
        np.testing.assert_array_equal(batch["input"][row], source.load(index)[0]["image"])
    (batch,) = evaluate(source, indices=[7], batch_size=1, size=16, crop=0.875)
    expected = center_view(source.load(7)[0]["image"], size=16, crop=0.875)
    np.testing.assert_array_equal(batch["input"][0], expected)


def test_eval_of_a_subset_is_the_same_on_many_hosts():
    chosen = [20, 3, 3, 0, 11]
    whole = list(evaluate(synthetic(21)[0], indices=chosen, batch_size=4))
    assert column(whole, "index").tolist() == [*chosen, -1, -1, -1]
    parts = [
        list(evaluate(synthetic(21)[0], indices=chosen, batch_size=4, host=(process, 4)))
        for process in range(4)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)
    assert list(evaluate(synthetic(21)[0], indices=[])) == []


def test_eval_masks_unreadable_examples():
    source, _ = synthetic(21, BAD)
    assert_fault(evaluate(source), BAD_DATA, "file 3: damaged")
    batches = evaluate(source, on_bad_example="quarantine", max_bad=0.2)
    seen = list(batches)
    mask = column(seen, "mask")
    assert np.flatnonzero(~mask).tolist() == [*BAD, 21, 22, 23]
    assert (column(seen, "label")[~mask] == -1).all()
    assert sorted(batches.bad) == list(BAD)


def test_close_stops_reading():
    source, loads = synthetic(10**6)
    batches = train(source, num_steps=10**6)
    next(batches)
    batches.close()
    assert list(batches) == []
    count = len(loads)
    assert count < 1000


PROGRAM = """
import sys
import numpy as np
from ssl_jax.inputs.image.make import input_from_views
from ssl_jax.inputs.image.views import View
from ssl_jax.data import pipeline
from ssl_jax.data.source import Source, image_record
from ssl_jax.errors import Fault
for module in ("tensorflow", "tensorflow_datasets", "sklearn", "PIL"):
    assert module not in sys.modules, module

def load(index):
    if index == 500:
        raise ValueError("damaged")
    return {"image": np.zeros((32, 32, 3), np.uint8)}, {}

source = Source("synthetic", 1000, image_record(3), load, lambda index: f"file {index}")
example_input = input_from_views((View(size=8),), seed=0, placement="device")
options = {"batch_size": 100, "seed": 0, "start_step": 0, "num_steps": 1000}
unfinished = pipeline.train_batches(source, example_input, on_bad_example="quarantine", **options)
next(unfinished)
try:
    list(pipeline.train_batches(source, example_input, **options))
except Fault as fault:
    sys.exit(f"{fault.code} {fault}")
"""


def test_fault_is_one_line_and_the_program_ends_cleanly():
    """Threads still prefetch at the end; the terminal shows only the message."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    lines = [line for line in done.stderr.splitlines() if "InitializeLog" not in line]
    unwanted = [line for line in lines if not line.startswith(("I0000", "unreadable"))]
    assert done.returncode == 1, done.stderr
    assert unwanted == [
        "65 file 500: damaged. Repair or remove it, or replace it in training by "
        "--config.data.on_bad_image=quarantine. `ssl-jax preview --check` lists all unreadable "
        "examples."
    ]


def test_real_photographs_make_a_batch(data_dir):
    if not (data_dir / "imagenet_sample").is_dir():
        pytest.skip(f"no imagenet_sample in {data_dir}")
    source = sources.open_source(
        "folder", data_dir=str(data_dir / "imagenet_sample"), split="train"
    )
    views = tuple(view._replace(size=32) for view in RECIPES["simclr_imagenet"])
    batches = train(source, views=views, placement="host", num_steps=2)
    for batch in itertools.islice(batches, 2):
        assert batch["views"].shape == (8, 2, 32, 32, 3)
        assert batch["views"].min() >= 0
        assert batch["views"].max() <= 1 + 1e-6
        assert batch["views"].std() > 0.1


def test_fault_survives_an_input_that_rejects_the_stand_in():
    def host(record, epoch, index):
        import tensorflow as tf

        height = tf.shape(record["image"])[0]
        with tf.control_dependencies([tf.debugging.assert_greater(height, 40)]):
            return {"views": tf.identity(height)}

    def evaluate_record(record):
        import tensorflow as tf

        height = tf.shape(record["image"])[0]
        with tf.control_dependencies([tf.debugging.assert_less(height, 20)]):
            return tf.identity(height)

    made = input_from_views(PAIR, seed=0)._replace(host=host, evaluate=evaluate_record)
    spoilt, _ = synthetic(8, range(8))
    options = {"batch_size": 8, "seed": 0, "start_step": 0, "num_steps": 1}
    assert_fault(pipeline.train_batches(spoilt, made, **options), BAD_DATA, "damaged")
    # Padding rows get the arrays of a real record, which the input accepts.
    batches = list(pipeline.eval_batches(synthetic(5)[0], made, batch_size=8))
    assert column(batches, "mask").sum() == 5


IMAGE = np.zeros((9, 9, 3), np.uint8)


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (None, r"must load \(record, labels\), got NoneType"),
        ((IMAGE, {}), "a dict of arrays and a dict of labels"),
        (({"image": IMAGE}, None), "a dict of arrays and a dict of labels"),
        (({"picture": IMAGE}, {}), "'image' as an array of uint8, got NoneType"),
        (({"image": IMAGE.tolist()}, {}), "'image' as an array of uint8, got list"),
        (({"image": IMAGE / 255}, {}), "'image' as an array of uint8, got float64"),
        (({"image": IMAGE[..., :1]}, {}), r"of shape \(None, None, 3\), got \(9, 9, 1\)"),
        (({"image": IMAGE[0]}, {}), r"got \(9, 3\)"),
        (({"image": IMAGE}, {"label": 10}), "the label 10; a label is -1 or a number below 10"),
        (({"image": IMAGE}, {"label": -2}), "the label -2"),
        (({"image": IMAGE}, {"label": "cat"}), "the label 'cat'"),
    ],
)
@pytest.mark.parametrize("on_bad_example", ["stop", "quarantine"])
def test_record_that_breaks_the_contract_is_a_fault(loaded, message, on_bad_example):
    """A source that is wrong is not a damaged example: quarantine does not hide it."""
    source = dataclasses.replace(synthetic(8)[0], load=lambda index: loaded)
    assert_fault(train(source, on_bad_example=on_bad_example), BAD_DATA, message)
    assert_fault(evaluate(source, on_bad_example=on_bad_example), BAD_DATA, message)


def test_masked_rows_are_zeros():
    source, _ = synthetic(5)
    (batch,) = evaluate(source)
    assert batch["mask"].tolist() == [True] * 5 + [False] * 3
    assert batch["input"][:5].any((1, 2, 3)).all()
    assert not batch["input"][5:].any()
