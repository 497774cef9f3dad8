"""Writes files of weights by hand: valid files, and parts of hostile files."""

import io
import json
import pickle
import struct
import warnings
import zipfile

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def arrays():
    """Returns the contents of the valid files: float32 and int64 arrays by name."""
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=4).astype(np.float32),
        "steps": np.array(7, np.int64),
    }


def safetensors(header, data=b"", length=None):
    """Returns a safetensors file.

    Args:
      header: a value to write as JSON, or bytes.
      data: bytes after the header.
      length: length of the header that the file claims; default: the actual length.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    """Returns the entry of a tensor in a safetensors header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def valid_safetensors():
    """Returns `arrays()` as a safetensors file."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays().items():
        start, data = len(data), data + array.tobytes()
        dtype = {"f": "F", "i": "I"}[array.dtype.kind] + str(8 * array.itemsize)
        header[name] = entry(array.shape, (start, len(data)), dtype)
    return safetensors(header, data)


def npy(array=None, *, descr=None, shape=None, data=None, length=None):
    """Returns a .npy file of the array; the keyword arguments replace parts of it."""
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
    """Returns a zip archive of (name, content) pairs; names may occur twice."""
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as writer:
        warnings.simplefilter("ignore")  # zipfile warns of names that occur twice
        for name, content in entries:
            writer.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def valid_npz():
    """Returns `arrays()` in the format of np.savez_compressed."""
    return archive(*((f"{n}.npy", npy(a)) for n, a in arrays().items()), deflate=True)


def push(value):
    """Returns the opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def storage(key="0", count=4, kind="FloatStorage", kind_module="torch", view=b""):
    """Returns the opcodes that push a storage.

    `view` holds the opcodes of the sixth field, which only the legacy format has.
    """
    name = f"c{kind_module}\n{kind}\n".encode()
    return b"(" + push("storage") + name + push(key) + push("cpu") + push(count) + view + b"tQ"


def tensor(shape=(4,), stride=(1,), offset=0, storage_code=None, bits=None):
    """Returns the opcodes that push a tensor, with a dictionary of PyTorch's bits if given."""
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    tail = b"\x89ccollections\nOrderedDict\n)R" + (b"" if bits is None else push(bits)) + b"tR"
    return head + (storage_code or storage()) + push(offset) + push(shape) + push(stride) + tail


def dictionary(**items):
    """Returns the opcodes that push a dictionary, given the opcodes of each value."""
    return b"}(" + b"".join(push(name) + code for name, code in items.items()) + b"u"


def torch_zip(code, storages=None, **others):
    """Returns a checkpoint in the zip format whose pickle has the opcodes `code`."""
    storages = {"0": np.arange(4, dtype=np.float32)} if storages is None else storages
    entries = [("archive/data.pkl", b"\x80\x02" + code + b".")]
    entries += [(f"archive/data/{key}", array.tobytes()) for key, array in storages.items()]
    entries += [(f"archive/{name}", content) for name, content in others.items()]
    return archive(*entries)


def torch_legacy(code, storages=None, count=None):
    """Returns a checkpoint in the format before PyTorch 1.6."""
    storages = {"0": np.arange(4, dtype=np.float32)} if storages is None else storages
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, system)]
    parts += [b"\x80\x02" + code + b".", pickle.dumps(sorted(storages), 2)]
    for _, array in sorted(storages.items()):
        parts.append(struct.pack("<q", array.size if count is None else count) + array.tobytes())
    return b"".join(parts)


def _torch_checkpoint(write, view=b""):
    kinds = {"f": "FloatStorage", "i": "LongStorage"}
    tensors, storages = {}, {}
    for key, (name, array) in enumerate(arrays().items()):
        stored = storage(str(key), array.size, kinds[array.dtype.kind], view=view)
        strides = tuple(step // array.itemsize for step in array.strides)
        tensors[name] = tensor(array.shape, strides, 0, stored)
        storages[str(key)] = array
    return write(dictionary(epoch=push(3), state_dict=dictionary(**tensors)), storages)


def valid_torch_zip():
    """Returns `arrays()` in the format of torch.save."""
    return _torch_checkpoint(torch_zip)


def valid_torch_legacy():
    """Returns `arrays()` in the format of torch.save before PyTorch 1.6."""
    return _torch_checkpoint(torch_legacy, view=b"N")


def valid_pickle(protocol):
    """Returns a pickle of `arrays()` under the key "net"."""
    return pickle.dumps({"net": arrays()}, protocol)


VALID = {
    "safetensors": valid_safetensors,
    "npz": valid_npz,
    "torch-zip": valid_torch_zip,
    "torch-legacy": valid_torch_legacy,
    "pickle-2": lambda: valid_pickle(2),
    "pickle-4": lambda: valid_pickle(4),
    "pickle-5": lambda: valid_pickle(5),
}
