"""Tests that `files.read` reads valid files of every kind, from usual writers and handmade."""

import argparse
import collections
import io
import json
import pathlib
import pickle
import zipfile

import handmade
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.weights import files
from ssl_jax.weights.files import pickles, placeholders, unpickle


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype.newbyteorder("=")
        assert actual[name].dtype.isnative
        assert not actual[name].flags.writeable
        np.testing.assert_array_equal(actual[name], array)
        assert actual[name].shape == array.shape


def arrays_of_all_dtypes():
    rng = np.random.default_rng(1)
    kinds = ["f8", "f4", "f2", ml_dtypes.bfloat16, "i8", "i4", "i2", "i1", "u1", "?"]
    return {f"t.{np.dtype(k)}": (9 * rng.random((2, 3))).astype(k) for k in kinds}


@pytest.mark.parametrize("kind", handmade.VALID)
def test_read_handmade_files(tmp_path, kind):
    (tmp_path / "x.bin").write_bytes(handmade.VALID[kind]())
    file = files.read(tmp_path / "x.bin")
    prefix = "net//" if kind.startswith("pickle") else ""
    assert_same(file.arrays, {prefix + name: array for name, array in handmade.arrays().items()})
    assert file.kind == kind.split("-")[0]


def test_read_safetensors_written_by_the_library(tmp_path):
    arrays = {**arrays_of_all_dtypes(), "scalar": np.array(3.0), "none": np.zeros((0, 4))}
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = files.read(str(tmp_path / "x.safetensors"))
    assert_same(file.arrays, arrays)
    assert (file.meta, file.kind) == ({"format": "pt"}, "safetensors")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_npz_written_by_numpy(tmp_path, save):
    arrays = {n: a for n, a in arrays_of_all_dtypes().items() if "bfloat16" not in n}
    arrays |= {"a/b:0": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.ones(3, ">f4")}
    arrays |= {"scalar": np.array(2.0), "none": np.zeros((3, 0), np.float32)}
    model = json.dumps({"name": "resnet50", "ü": 1}, ensure_ascii=False)
    save(tmp_path / "x.npz", model=np.array(model), **arrays)
    file = files.read(tmp_path / "x.npz")
    assert_same(file.arrays, arrays)
    assert file.meta == {"model": model}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_read_pickles_of_numpy_arrays(tmp_path, protocol):
    arrays = arrays_of_all_dtypes() | {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    arrays |= {"big": np.arange(3, dtype=">f4"), "number": np.array(1.5), "none": np.ones((0, 3))}
    tree = {"byol/~/conv": dict(arrays), "top": np.ones(2), "tied": arrays["f"], "text": "no"}
    tree["byol/~/conv"]["number"] = np.float64(1.5)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tree, protocol))
    file = files.read(tmp_path / "x.pkl")
    expected = {f"byol/~/conv//{name}": array for name, array in arrays.items()}
    assert_same(file.arrays, expected | {"top": np.ones(2), "tied": arrays["f"]})
    assert file.kind == "pickle"


def test_read_pickles_of_numpy_1(tmp_path):
    """NumPy 2.0 renamed numpy.core to numpy._core."""
    data = pickle.dumps({"a": np.arange(4.0)}, 2)
    assert b"numpy._core" in data
    (tmp_path / "x").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    assert_same(files.read(tmp_path / "x").arrays, {"a": np.arange(4.0)})


def test_read_pickles_of_python_2(tmp_path):
    """Python 2 pickles an OrderedDict as a list of pairs, and strings as bytes."""
    array = pickle.dumps(np.arange(4.0), 2)[2:-1]
    pairs = b"](](U\1a" + array + b"ee"
    (tmp_path / "x").write_bytes(b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R.")
    assert_same(files.read(tmp_path / "x").arrays, {"a": np.arange(4.0)})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_interpreter_agrees_with_pickle(protocol):
    """The results are equal for all plain values, except that keys become strings."""
    shared = [1, "ü" * 300, {"a": ()}]
    value = {
        "numbers": [0, 255, 256, 65536, -1, -(2**31), 2**31, 2**70, -(2**70), 1.5, float("inf")],
        "texts": ["", "x", "ü\ud800", "long " * 9000],
        "bytes": [b"", b"\x00\xff", b"long " * 60],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((),)],
        "others": [None, True, False, [], {}],
        "shared": [shared, shared, [shared]],
        "many": list(range(2500)),
        "ordered": collections.OrderedDict(b=1, a={"c": 2}),
        "counter": collections.Counter("aab"),
    }
    data = pickle.dumps(value, protocol)
    names = {**placeholders.COMMON_NAMES, **pickles.NUMPY_NAMES}
    result = unpickle.load(io.BytesIO(data), len(data), names)
    assert result == value
    assert result["shared"][0] is result["shared"][2][0]
    numbers = pickle.dumps({1: "a", None: "b", (1, 2): "c"}, protocol)
    assert unpickle.load(io.BytesIO(numbers), len(numbers), {}) == {"1": "a"}


def torch_checkpoint(torch):
    """Returns (state dict, other values of the checkpoint, expected arrays)."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    net = net.to(memory_format=torch.channels_last)
    state = net.state_dict()
    state["parameter"] = torch.nn.Parameter(torch.randn(3))
    state["turned"] = torch.randn(2, 5).t()
    state["part"] = torch.randn(10)[3:9:2]
    state["tied"] = state["0.weight"]
    state["none"] = torch.zeros(0, 3)
    state["negative"] = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    for kind in ("float64", "float16", "int32", "int16", "int8", "uint8", "bool"):
        state[kind] = torch.randint(0, 2, (2, 3)).to(getattr(torch, kind))
    arrays = {name: tensor.detach().resolve_neg().numpy() for name, tensor in state.items()}
    state["bfloat16"] = torch.tensor([1.5, -2]).to(torch.bfloat16)
    arrays["bfloat16"] = np.array([1.5, -2], ml_dtypes.bfloat16)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    others = {
        "epoch": 3,
        "arch": "resnet50",
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(output_dir=pathlib.PurePosixPath("/runs"), betas=(0.9, 0.99)),
        "best": np.float64(0.5),
        "milestones": collections.Counter([1, 2]),
        "tags": {"a", "b"},
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "dtype": torch.float32,
    }
    return state, others, arrays


def test_read_tensors_that_are_stored_with_the_opposite_sign(tmp_path):
    """PyTorch stores the imaginary part of a conjugate as a view with a bit."""
    negative = {"neg": True}
    code = handmade.dictionary(
        plain=handmade.tensor(bits={}),
        negative=handmade.tensor(bits=negative),
        turned=handmade.tensor((2, 2), (1, 2), bits=negative),
        number=handmade.tensor((), (), 3, bits=negative),
    )
    for write in (handmade.torch_zip, handmade.torch_legacy):
        (tmp_path / "x.pth").write_bytes(write(code))  # its storage holds 0, 1, 2, 3
        expected = {
            "plain": np.float32([0, 1, 2, 3]),
            "negative": np.float32([0, -1, -2, -3]),
            "turned": np.float32([[0, -2], [-1, -3]]),
            "number": np.float32(-3),
        }
        read = files.read(tmp_path / "x.pth").arrays
        assert_same(read, expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("level", ["", "state_dict", "model", "teacher"])
def test_read_checkpoints_written_by_torch(torch, tmp_path, zipped, level):
    state, others, arrays = torch_checkpoint(torch)
    path = tmp_path / "x.pth.tar"
    checkpoint = {**others, level: state} if level else state
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    file = files.read(path)
    assert_same(file.arrays, arrays)
    assert file.kind == "torch"


def test_read_big_endian_checkpoint(torch, tmp_path):
    """On big-endian machines torch swaps the bytes of storages and writes an entry "byteorder"."""
    state, others, arrays = torch_checkpoint(torch)
    torch.save({**others, "state_dict": state}, tmp_path / "little")
    widths = {"float64": 8, "float16": 2, "bfloat16": 2, "int32": 4, "int16": 2}
    multibyte = {n: a for n, a in arrays.items() if n in widths or a.dtype == np.float32}
    torch.save({name: state[name] for name in multibyte}, tmp_path / "little")
    with (
        zipfile.ZipFile(tmp_path / "little") as little,
        zipfile.ZipFile(tmp_path / "big", "w") as big,
    ):
        pickled = little.read("little/data.pkl")
        for name in little.namelist():
            data = little.read(name)
            if name.endswith("/byteorder"):
                data = b"big"
            elif "/data/" in name:
                data = np.frombuffer(data, f"u{_item_size(pickled, name)}").byteswap().tobytes()
            big.writestr(name, data)
    assert_same(files.read(tmp_path / "big").arrays, multibyte)


def _item_size(pickled, name):
    """Returns the bytes per element of a storage, from the last class named before its key."""
    key = name.split("/")[-1].encode()
    before = pickled[: pickled.index(b"X" + bytes([len(key), 0, 0, 0]) + key)]
    sizes = {b"Double": 8, b"Float": 4, b"Half": 2, b"BFloat16": 2, b"Int": 4, b"Short": 2}
    by_position = {before.rfind(b"torch\n" + kind + b"Storage"): n for kind, n in sizes.items()}
    return by_position[max(by_position)]


def test_missing_path_is_reported(tmp_path):
    with pytest.raises(Fault, match=r"nothing.pth is missing") as caught:
        files.read(tmp_path / "nothing.pth")
    assert caught.value.code == MISSING_INPUT


def test_unknown_kind_lists_supported_kinds(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"not weights at all, but a text")
    with pytest.raises(Fault, match="unknown kind") as caught:
        files.read(tmp_path / "x.pth")
    assert caught.value.code == BAD_DATA
    for kind in ("safetensors", "npz", ".pth", "pickles", "TensorFlow"):
        assert kind in str(caught.value)


def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(handmade.valid_safetensors())
    (tmp_path / "model.safetensors").symlink_to("blob")
    assert_same(files.read(tmp_path / "model.safetensors").arrays, handmade.arrays())
