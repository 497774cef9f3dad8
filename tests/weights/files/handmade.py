"""Files of weights written by hand: good ones to damage, and the parts of hostile ones."""

import io
import json
import pickle
import struct
import warnings
import zipfile

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def arrays():
    """What the good files hold: name to float32 or int64 array."""
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=4).astype(np.float32),
        "steps": np.array(7, np.int64),
    }


def safetensors(header, data=b"", length=None):
    """`header` as JSON unless it is bytes; `length` is what the file claims of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def described(shape=(2,), offsets=(0, 8), dtype="F32"):
    """A tensor as a safetensors header describes it."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def good_safetensors(found=None):
    """The arrays as safetensors."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in (found or arrays()).items():
        start, data = len(data), data + array.tobytes()
        kind = {"f": "F", "i": "I"}[array.dtype.kind] + str(8 * array.itemsize)
        header[name] = described(array.shape, (start, len(data)), kind)
    return safetensors(header, data)


def npy(array=None, *, descr=None, shape=None, data=None, length=None):
    """A .npy file of the array, with parts of it replaced."""
    array = np.zeros(2, np.float32) if array is None else array
    fields = {
        "descr": array.dtype.str if descr is None else descr,
        "fortran_order": False,
        "shape": array.shape if shape is None else shape,
    }
    text = "{" + "".join(f"'{k}': {v!r}, " for k, v in fields.items()) + "}\n"
    size = struct.pack("<H", len(text) if length is None else length)
    return b"\x93NUMPY\1\0" + size + text.encode() + (array.tobytes() if data is None else data)


def archive(*entries, deflate=False):
    """A zip of (name, content) pairs, names twice included."""
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as writer:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in entries:
            writer.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def good_npz(found=None, deflate=True):
    """The arrays as np.savez_compressed writes them."""
    found = found or arrays()
    return archive(*((f"{n}.npy", npy(a)) for n, a in found.items()), deflate=deflate)


def op(value):
    """Opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def storage(key="0", count=4, kind="FloatStorage", kind_module="torch", view=b""):
    """Opcodes that push a storage; `view` are opcodes of the sixth field, of the legacy format."""
    name = f"c{kind_module}\n{kind}\n".encode()
    return b"(" + op("storage") + name + op(key) + op("cpu") + op(count) + view + b"tQ"


def tensor(shape=(4,), stride=(1,), offset=0, pushed=None):
    """Opcodes that push a tensor."""
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    tail = b"\x89ccollections\nOrderedDict\n)RtR"
    return head + (pushed or storage()) + op(offset) + op(shape) + op(stride) + tail


def dictionary(**items):
    """Opcodes that push a dictionary of pushed values."""
    return b"}(" + b"".join(op(name) + pushed for name, pushed in items.items()) + b"u"


def torch_zip(pushed, storages=None, **others):
    """A checkpoint of the zip format whose object is made by the opcodes `pushed`."""
    storages = {"0": np.arange(4, dtype=np.float32)} if storages is None else storages
    entries = [("archive/data.pkl", b"\x80\x02" + pushed + b".")]
    entries += [(f"archive/data/{key}", array.tobytes()) for key, array in storages.items()]
    entries += [(f"archive/{name}", content) for name, content in others.items()]
    return archive(*entries)


def torch_legacy(pushed, storages=None, count=None):
    """A checkpoint of the format before 1.6."""
    storages = {"0": np.arange(4, dtype=np.float32)} if storages is None else storages
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, system)]
    parts += [b"\x80\x02" + pushed + b".", pickle.dumps(sorted(storages), 2)]
    for _, array in sorted(storages.items()):
        parts.append(struct.pack("<q", array.size if count is None else count) + array.tobytes())
    return b"".join(parts)


def _torch(write, view=b""):
    kinds = {"f": "FloatStorage", "i": "LongStorage"}
    tensors, storages = {}, {}
    for key, (name, array) in enumerate(arrays().items()):
        stored = storage(str(key), array.size, kinds[array.dtype.kind], view=view)
        strides = tuple(step // array.itemsize for step in array.strides)
        tensors[name] = tensor(array.shape, strides, 0, stored)
        storages[str(key)] = array
    return write(dictionary(epoch=op(3), state_dict=dictionary(**tensors)), storages)


def good_torch_zip():
    """The arrays as torch.save writes them."""
    return _torch(torch_zip)


def good_torch_legacy():
    """The arrays as torch.save wrote them before 1.6."""
    return _torch(torch_legacy, view=b"N")


def good_pickle(protocol):
    """The arrays as a pickled dictionary of one level more."""
    return pickle.dumps({"net": arrays()}, protocol)


GOOD = {
    "safetensors": good_safetensors,
    "npz": good_npz,
    "torch-zip": good_torch_zip,
    "torch-legacy": good_torch_legacy,
    "pickle-2": lambda: good_pickle(2),
    "pickle-4": lambda: good_pickle(4),
    "pickle-5": lambda: good_pickle(5),
}
