"""Good files of every kind, by their usual writers and by hand, and what the messages say."""

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
from ssl_jax.weights.files import pickles, stand_ins, unpickle


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].dtype.isnative
        assert not found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


def of_all_dtypes():
    rng = np.random.default_rng(1)
    kinds = ["f8", "f4", "f2", ml_dtypes.bfloat16, "i8", "i4", "i2", "i1", "u1", "?"]
    return {f"t.{np.dtype(k)}": (9 * rng.random((2, 3))).astype(k) for k in kinds}


@pytest.mark.parametrize("kind", handmade.GOOD)
def test_handmade_files(tmp_path, kind):
    (tmp_path / "x.bin").write_bytes(handmade.GOOD[kind]())
    found = files.read(tmp_path / "x.bin")
    prefix = "net//" if kind.startswith("pickle") else ""
    same(found.arrays, {prefix + name: array for name, array in handmade.arrays().items()})
    assert found.kind == kind.split("-")[0]


def test_safetensors_by_the_library(tmp_path):
    arrays = {**of_all_dtypes(), "scalar": np.array(3.0), "none": np.zeros((0, 4))}
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = files.read(str(tmp_path / "x.safetensors"))
    same(found.arrays, arrays)
    assert (found.meta, found.kind) == ({"format": "pt"}, "safetensors")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_by_numpy(tmp_path, save):
    arrays = {n: a for n, a in of_all_dtypes().items() if "bfloat16" not in n}
    arrays |= {"a/b:0": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.ones(3, ">f4")}
    arrays |= {"scalar": np.array(2.0), "none": np.zeros((3, 0), np.float32)}
    model = json.dumps({"name": "resnet50", "ü": 1}, ensure_ascii=False)
    save(tmp_path / "x.npz", model=np.array(model), **arrays)
    found = files.read(tmp_path / "x.npz")
    same(found.arrays, arrays)
    assert found.meta == {"model": model}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_numpy_arrays(tmp_path, protocol):
    arrays = of_all_dtypes() | {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    arrays |= {"big": np.arange(3, dtype=">f4"), "number": np.array(1.5), "none": np.ones((0, 3))}
    tree = {"byol/~/conv": dict(arrays), "top": np.ones(2), "tied": arrays["f"], "text": "no"}
    tree["byol/~/conv"]["number"] = np.float64(1.5)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tree, protocol))
    found = files.read(tmp_path / "x.pkl")
    expected = {f"byol/~/conv//{name}": array for name, array in arrays.items()}
    same(found.arrays, expected | {"top": np.ones(2), "tied": arrays["f"]})
    assert found.kind == "pickle"


def test_pickles_of_older_numpy(tmp_path):
    """NumPy renamed its core at 2.0."""
    data = pickle.dumps({"a": np.arange(4.0)}, 2)
    assert b"numpy._core" in data
    (tmp_path / "x").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    same(files.read(tmp_path / "x").arrays, {"a": np.arange(4.0)})


def test_pickles_of_python_2(tmp_path):
    """Its OrderedDict is a list of pairs, its texts are bytes."""
    array = pickle.dumps(np.arange(4.0), 2)[2:-1]
    pairs = b"]]((U\1a" + array + b"ea"
    pairs = b"](](U\1a" + array + b"ee"
    (tmp_path / "x").write_bytes(b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R.")
    same(files.read(tmp_path / "x").arrays, {"a": np.arange(4.0)})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_interpreter_agrees_with_pickle(protocol):
    """On all that is plain; keys come as texts."""
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
    names = {**stand_ins.COMMON, **pickles.NUMPY}
    found = unpickle.load(io.BytesIO(data), len(data), names)
    assert found == value
    assert found["shared"][0] is found["shared"][2][0]
    numbers = pickle.dumps({1: "a", None: "b", (1, 2): "c"}, protocol)
    assert unpickle.load(io.BytesIO(numbers), len(numbers), {}) == {"1": "a"}


def torch_checkpoint(torch):
    """(what to save, the arrays that must be read of it)."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    net = net.to(memory_format=torch.channels_last)
    state = net.state_dict()
    state["parameter"] = torch.nn.Parameter(torch.randn(3))
    state["turned"] = torch.randn(2, 5).t()
    state["part"] = torch.randn(10)[3:9:2]
    state["tied"] = state["0.weight"]
    state["none"] = torch.zeros(0, 3)
    for kind in ("float64", "float16", "int32", "int16", "int8", "uint8", "bool"):
        state[kind] = torch.randint(0, 2, (2, 3)).to(getattr(torch, kind))
    arrays = {name: tensor.detach().numpy() for name, tensor in state.items()}
    state["bfloat16"] = torch.tensor([1.5, -2]).to(torch.bfloat16)
    arrays["bfloat16"] = np.array([1.5, -2], ml_dtypes.bfloat16)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    beside = {
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
    return state, beside, arrays


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("level", ["", "state_dict", "model", "teacher"])
def test_checkpoints_by_torch(torch, tmp_path, zipped, level):
    state, beside, arrays = torch_checkpoint(torch)
    path = tmp_path / "x.pth.tar"
    saved = {**beside, level: state} if level else state
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    found = files.read(path)
    same(found.arrays, arrays)
    assert found.kind == "torch"


def test_a_big_endian_checkpoint(torch, tmp_path):
    """As torch writes it there: the storages' bytes turned, and an entry that says so."""
    state, beside, arrays = torch_checkpoint(torch)
    torch.save({**beside, "state_dict": state}, tmp_path / "little")
    widths = {"float64": 8, "float16": 2, "bfloat16": 2, "int32": 4, "int16": 2}
    kept = {n: a for n, a in arrays.items() if n in widths or a.dtype == np.float32}
    torch.save({name: state[name] for name in kept}, tmp_path / "little")
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
                data = np.frombuffer(data, f"u{_width(pickled, name)}").byteswap().tobytes()
            big.writestr(name, data)
    same(files.read(tmp_path / "big").arrays, kept)


def _width(pickled, name):
    """Bytes of a storage's elements, by the class that is named last before its key."""
    key = name.split("/")[-1].encode()
    before = pickled[: pickled.index(b"X" + bytes([len(key), 0, 0, 0]) + key)]
    widths = {b"Double": 8, b"Float": 4, b"Half": 2, b"BFloat16": 2, b"Int": 4, b"Short": 2}
    found = {before.rfind(b"torch\n" + kind + b"Storage"): width for kind, width in widths.items()}
    return found[max(found)]


def test_a_missing_path(tmp_path):
    with pytest.raises(Fault, match=r"nothing.pth is missing") as caught:
        files.read(tmp_path / "nothing.pth")
    assert caught.value.code == MISSING_INPUT


def test_an_unknown_kind_lists_what_can_be_read(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"not weights at all, but a text")
    with pytest.raises(Fault, match="unknown kind") as caught:
        files.read(tmp_path / "x.pth")
    assert caught.value.code == BAD_DATA
    for kind in ("safetensors", "npz", ".pth", "pickles", "TensorFlow"):
        assert kind in str(caught.value)


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(handmade.good_safetensors())
    (tmp_path / "model.safetensors").symlink_to("blob")
    same(files.read(tmp_path / "model.safetensors").arrays, handmade.arrays())
