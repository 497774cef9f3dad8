"""Tests of reading checkpoints that TensorFlow wrote."""

import pathlib
import shutil
import time

import numpy as np
import pytest

from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.weights import files

RNG = np.random.default_rng(0)
WEIGHTS = {
    "base_model/conv2d/kernel": RNG.normal(size=(3, 3, 3, 8)).astype(np.float32),
    "base_model/batch_normalization/moving_mean": RNG.normal(size=8).astype(np.float32),
    "head_supervised/linear_layer/dense/bias": RNG.normal(size=10).astype(np.float32),
}
OTHERS = {
    "global_step": np.array(100, np.int64),
    "base_model/conv2d/kernel/Momentum": np.ones((3, 3, 3, 8), np.float32),
    "base_model/conv2d/kernel/LARSOptimizer": np.ones(8, np.float32),
    "base_model/conv2d/kernel/ExponentialMovingAverage": np.ones(8, np.float32),
    "base_model/conv2d/kernel/Adam_1": np.ones(8, np.float32),
    "beta1_power": np.array(0.9, np.float32),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns a folder with a name-based checkpoint, as `tf.compat.v1.train.Saver` writes it."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("tensorflow")
    values = WEIGHTS | OTHERS | {"names": np.array([b"cat"], object)}
    tensors = [tf.constant(value) for value in values.values()]
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt-100"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=tensors,
    )
    text = 'model_checkpoint_path: "/elsewhere/model.ckpt-100"\n'
    (folder / "checkpoint").write_text(text + 'all_model_checkpoint_paths: "model.ckpt-0"\n')
    return folder


def copy(folder, to):
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


@pytest.mark.parametrize(
    "name", ["model.ckpt-100", "", "model.ckpt-100.index", "model.ckpt-100.data-00000-of-00001"]
)
def test_read_leaves_out_optimizer_slots_and_counters(written, name):
    file = files.read(written / name)
    assert file.kind == "tensorflow"
    assert file.arrays.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(file.arrays[name], array, strict=True)


def test_read_object_based_checkpoint(tmp_path):
    """The result has no optimizer slots, no counters and no object graph."""
    import tensorflow as tf

    kernel = tf.Variable(WEIGHTS["base_model/conv2d/kernel"])
    slot = tf.Variable(tf.ones(3))
    checkpoint = tf.train.Checkpoint(model={"kernel": kernel}, optimizer={"momentum": slot})
    path = checkpoint.save(str(tmp_path / "ckpt"))
    for prefix_or_folder in (path, tmp_path):
        arrays = files.read(prefix_or_folder).arrays
        assert arrays.keys() == {"model/kernel"}
        np.testing.assert_array_equal(arrays["model/kernel"], kernel.numpy(), strict=True)


@pytest.mark.parametrize(
    ("missing", "code", "message"),
    [
        ("index", MISSING_INPUT, "is missing"),
        ("data-00000-of-00001", BAD_DATA, r"model.ckpt-100.data-\* are missing beside"),
    ],
)
def test_missing_file_is_reported(written, tmp_path, missing, code, message):
    folder = copy(written, tmp_path)
    (folder / f"model.ckpt-100.{missing}").unlink()
    with pytest.raises(Fault, match=message) as caught:
        files.read(folder / "model.ckpt-100")
    assert caught.value.code == code


def test_cut_data_file_is_refused(written, tmp_path):
    """TensorFlow itself would allocate the size that the index claims."""
    folder = copy(written, tmp_path)
    data = folder / "model.ckpt-100.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:500])
    with pytest.raises(Fault, match="its variables claim 936 bytes; the data files have 500"):
        files.read(folder / "model.ckpt-100")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    import tensorflow as tf

    path = tf.train.Checkpoint(w=tf.Variable([1.0, np.nan])).save(str(tmp_path / "ckpt"))
    with pytest.raises(Fault, match="tensor 'w' holds NaN or infinity"):
        files.read(path)


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_random_damage_is_refused_or_harmless(written, tmp_path, part):
    """TensorFlow's checksums find damage, and every exception of TensorFlow becomes a Fault."""
    folder = copy(written, tmp_path)
    path: pathlib.Path = folder / f"model.ckpt-100.{part}"
    good, rng, refused = path.read_bytes(), np.random.default_rng(3), 0
    for attempt in range(300):
        data = bytearray(good)
        if attempt % 3:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            del data[rng.integers(len(data)) :]
        path.write_bytes(data)
        start = time.process_time()
        try:
            arrays = files.read(folder / "model.ckpt-100").arrays
        except Fault:
            refused += 1
        else:
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, WEIGHTS[name], strict=True)
        assert time.process_time() - start < 1
    assert refused > 100  # not more: half of the data are Momentum slots, which are not read
