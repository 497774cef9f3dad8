"""A corpus of hostile and broken files: name, content and what the refusal must say."""

import json
import os
import pickle
import struct

import handmade as hand
import numpy as np
from handmade import archive, described, dictionary, npy, op, safetensors, storage, tensor

TOUCH = "touch PWNED"  # what a file would run, where the test looks for it
F4 = np.zeros(2, np.float32).tobytes()
CALL = {
    "os-system": b"cos\nsystem\n" + op((TOUCH,)) + b"R",
    "posix-system": b"cposix\nsystem\n" + op((TOUCH,)) + b"R",
    "eval": b"cbuiltins\neval\n" + op((f"__import__('os').system({TOUCH!r})",)) + b"R",
    "getattr": b"cbuiltins\ngetattr\n(cos\nsystem\n" + op("x") + b"tR",
    "popen": b"csubprocess\nPopen\n" + op((TOUCH,)) + b"R",
    "stack-global": op("os") + op("system") + b"\x93" + op((TOUCH,)) + b"R",
    "torch-load": b"ctorch\nload\n" + op((TOUCH,)) + b"R",
    "nested-name": b"cbuiltins\n__dict__.eval\n" + op((TOUCH,)) + b"R",
}
NAMED = {
    "os-system": "os.system",
    "posix-system": "posix.system",
    "eval": "builtins.eval",
    "getattr": "builtins.getattr",
    "popen": "subprocess.Popen",
    "stack-global": "os.system",
    "torch-load": "torch.load",
    "nested-name": "builtins.__dict__.eval",
}


def of_safetensors():
    one = {"a": described()}
    nan = np.array([1, np.nan], np.float32).tobytes()
    pair = lambda a, b: {"a": described(offsets=a), "b": described(offsets=b)}  # noqa: E731
    deep = b'{"a":' + b"[" * 300_000 + b"]" * 300_000 + b"}"
    yield "header-of-4-GB", safetensors(one, F4, 4_000_000_000), "header claims 4,000,000,000 bytes"
    yield "header-longer-than-file", safetensors(one, F4, 500), "header claims 500 bytes; .. are"
    yield "header-of-2-MB", safetensors(b"{}" + b" " * 2_000_000), "header claims 2,000,002"
    yield "header-2-to-the-64", safetensors(one, F4, 2**64 - 1), "header claims 18,446"
    yield "header-no-json", safetensors(b"{'a': 1}"), "no JSON"
    yield "header-no-utf-8", safetensors(b'{"\xff\xfe": 1}'), "no JSON in UTF-8"
    yield "header-a-list.safetensors", safetensors(b"[1, 2]"), "no object"
    yield "header-nested", safetensors(deep), "header is nested too deeply"
    yield "header-long-number", safetensors(b'{"a":' + b"9" * 9000 + b"}"), "no JSON"
    text = json.dumps(described())
    twice = f'{{"a": {text}, "a": {text}}}'.encode()
    yield "duplicate-keys", safetensors(twice, F4), "header has 'a' twice"
    yield "metadata-of-numbers", safetensors({"__metadata__": {"a": 1}, **one}, F4), "__metadata__"
    negative = safetensors({"a": described(offsets=(-8, 0))}, F4)
    yield "negative-offset", negative, "tensor 'a' has data_offsets that are not two positions"
    yield "boolean-offset", safetensors({"a": described((0,), (False, 0))}), "data_offsets"
    yield "float-shape", safetensors({"a": described((2.0,))}, F4), "tensor 'a' has a size"
    yield "negative-shape", safetensors({"a": described((-1, -2))}, F4), "tensor 'a' has a size"
    yield "overlap", safetensors(pair((0, 8), (4, 12)), F4 + F4), "'a' and 'b' overlap at byte 4"
    yield "same-bytes", safetensors(pair((0, 8), (0, 8)), F4), "'a' and 'b' overlap at byte 0"
    yield "gap", safetensors(pair((0, 8), (12, 20)), F4 * 3), "gap of 4 bytes before tensor 'b'"
    yield "gap-in-front", safetensors({"a": described(offsets=(8, 16))}, F4 * 2), "gap of 8 bytes"
    yield "trailing-bytes", safetensors(one, F4 + b"#!/bin/sh"), "9 bytes trail"
    yield "data-cut", safetensors(one, F4[:5]), "it is cut: tensors end at byte 8, but 5"
    yield "dtype-lie", safetensors({"a": described(dtype="F64")}, F4), "'a': F64 .* needs 16 bytes"
    yield "dtype-unknown", safetensors({"a": described(dtype="F8_E4M3")}, F4), "dtype 'F8_E4M3'"
    overflow = safetensors({"a": described((2**32, 2**32), (0, 0))})
    yield "shape-overflow", overflow, "tensor 'a' has a shape that overflows"
    yield "empty-overflow", safetensors({"a": described((0, 2**62), (0, 0))}), "overflows"
    yield "rank-1000", safetensors({"a": described([1] * 1000, (0, 4))}, F4[:4]), "1,000 axes"
    for label, name in {"dots": "../a", "absolute": "/etc/x", "control": "a\0b\x1b[2J"}.items():
        yield f"name-{label}", safetensors({name: described()}, F4), "name that is not allowed"
    yield "name-long", safetensors({"a" * 5000: described()}, F4), "name that is not allowed"
    yield "extra-field", safetensors({"a": {**described(), "code": "x"}}, F4), "alone"
    yield "nan-weights", safetensors({"w": described()}, nan), "tensor 'w' holds NaN or infinity"
    yield "bool-of-7", safetensors({"b": described((1,), (0, 1), "BOOL")}, b"\7"), "truth values"
    yield "no-tensors", safetensors({}), "it holds no tensors"


def patched(data, changes):
    """Bytes of a zip's entry headers changed, by offset in the local and in the central one."""
    data = bytearray(data)
    local, central = data.index(b"PK\3\4"), data.index(b"PK\1\2")
    for at_local, at_central, value in changes:
        if at_local is not None:
            data[local + at_local : local + at_local + len(value)] = value
        data[central + at_central : central + at_central + len(value)] = value
    return bytes(data)


def many_records(data, count, names):
    """The zip with its first central record `count` times under other names of one length."""
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    head, name_length = data[start : start + 46], data[start + 28]
    records = b"".join(head + names(i).encode().ljust(name_length, b"_") for i in range(count))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(records), start, 0)
    assert end > start
    return data[:start] + records + tail


def of_npz():
    good = archive(("a.npy", npy()))
    whole = struct.pack("<I", len(npy()))
    zeros = npy(np.zeros(10_000_000, np.float32))
    bomb = archive(("a.npy", zeros), deflate=True)
    small = struct.pack("<I", len(npy(np.zeros(1000, np.float32))))
    objects = npy(descr="|O", data=pickle.dumps([1, "a"]))
    yield "zip-bomb", bomb, "claim to grow to 40,000,.* bytes"
    yield "zip-bomb-that-lies", patched(bomb, [(22, 24, small)]), "a.npy"
    yield "object-array", archive(("a.npy", objects)), r"dtype '\|O'; only numbers"
    records = npy(descr=[("x", "<f4"), ("y", "<f4")])
    yield "structured-array", archive(("a.npy", records)), "none of an array of numbers"
    yield "bfloat16-as-void", archive(("a.npy", npy(descr="<V4"))), "dtype '<V4'"
    yield "header-lie", archive(("a.npy", npy(shape=(10**9,)))), "header needs 4,000,.* entry has"
    yield "header-too-small", archive(("a.npy", npy(shape=(1,)))), "its header needs"
    yield "header-negative", archive(("a.npy", npy(shape=(-2,)))), "none of an array of numbers"
    yield "header-overflow", archive(("a.npy", npy(shape=(2**40, 2**40)))), "overflows"
    yield "header-of-60-KB", archive(("a.npy", npy(length=60_000))), "header claims 60,000 bytes"
    code = b"\x93NUMPY\1\0\x20\0" + b"__import__('os').system('true')\n"
    yield "header-of-code", archive(("a.npy", code)), "none of an array of numbers"
    nested = b"\x93NUMPY\1\0\xb8\x0b" + b"(" * 3000
    yield "header-nested", archive(("a.npy", nested)), "none of an array of numbers"
    yield "no-npy-inside", archive(("a.npy", b"hello, world")), "does not start like a .npy"
    yield "other-entry", archive(("a.npy", npy()), ("setup.py", b"x")), "'setup.py' is no .npy"
    yield "entry-twice", archive(("a.npy", npy()), ("a.npy", npy())), "'a.npy' is there twice"
    yield "entry-dots", archive(("../x.npy", npy())), r"entry '../x.npy' leaves the archive"
    yield "entry-absolute", archive(("/etc/x.npy", npy())), "leaves the archive"
    backslash = archive(("b.npy", npy())).replace(b"b.npy", b"\\.npy")
    yield "entry-backslash", backslash, "leaves the archive"
    yield "entry-drive", archive(("C:x.npy", npy())), "leaves the archive"
    nul = archive(("abcd.npy", npy())).replace(b"abcd.npy", b"a\0.d.npy")
    yield "entry-null-byte", nul, "name that is not allowed"
    yield "encrypted", patched(good, [(6, 8, b"\1\0")]), "'a.npy' is encrypted"
    yield "method-bzip2", patched(good, [(8, 10, b"\x0c\0")]), "compressed by method 12"
    yield "wrong-crc", good.replace(npy(), npy(np.ones(2, np.float32))), "CRC"
    yield "stored-two-sizes", patched(good, [(22, 24, b"\xff\xff\0\0")]), "claims two sizes"
    beyond = patched(good, [(18, 20, whole), (None, 42, b"\xff\xff\0\0")])
    yield "entry-beyond-file", beyond, "ends beyond the file"
    same = many_records(archive(("a0000.npy", npy(np.ones(30_000)))), 30, lambda i: f"a{i:04}.npy")
    yield "overlapping-entries", same, "entries overlap"
    million = many_records(good, 40_000, lambda i: f"{i % 10}.npy")
    tens = many_records(good, 15_000, lambda i: f"{i:05x}")
    yield "directory-of-15000", tens, "entries overlap|is no .npy"
    yield "directory-of-2-MB", million, "directory claims"
    yield "empty-archive", b"PK\5\6" + bytes(18), "holds no tensors"
    yield "directory-missing", good[: good.index(b"PK\1\2")], "no whole zip archive"
    texts = npy(descr="<U3", shape=(1,), data=bytes(12))
    yield "list-of-texts", archive(("a.npy", texts)), "holds texts"
    text = npy(descr="<U1", shape=(), data=b"\xff\xff\xff\xff")
    yield "text-no-unicode", archive(("a.npy", text)), "no Unicode"
    yield "infinite-weights", archive(("w.npy", npy(np.array([np.inf])))), "'w' holds NaN or infin"


def of_torch():
    for label, pushed in CALL.items():
        for format, write in (("zip", hand.torch_zip), ("legacy", hand.torch_legacy)):
            yield (
                f"{format}-{label}",
                write(dictionary(a=pushed)),
                f"refers to {NAMED[label]}: only",
            )
    wrong = {
        "storage-out-of-bounds": (tensor((5,)), "'0' reaches beyond it: shape .5,."),
        "offset-out-of-bounds": (tensor((2,), offset=3), "reaches beyond it"),
        "stride-out-of-bounds": (tensor((2, 2), (3, 1)), "reaches beyond it"),
        "negative-stride": (tensor((4,), (-1,)), "negative stride"),
        "negative-offset": (tensor((1,), offset=-1), "negative stride or offset"),
        "negative-size": (tensor((-4,)), "size that is negative"),
        "expanded-to-4-TB": (tensor((10**12,), (0,)), "reaches beyond it"),
        "shape-overflow": (tensor((2**40, 2**40), (0, 0)), "overflows"),
        "strides-missing": (tensor((2, 2), (1,)), "2 axes and 1 strides"),
        "a-million-axes": (tensor((1,) * 100_000, (0,) * 100_000), "100,000 axes"),
        "storage-lie": (tensor(pushed=storage(count=400)), "storage '0' has"),
        "storage-of-exabytes": (tensor(pushed=storage(count=2**62)), "overflows"),
        "storage-dots": (tensor(pushed=storage("../../etc/passwd")), "passwd', which is no number"),
        "storage-missing": (tensor(pushed=storage("7")), "storage '7' is missing|'0' that no"),
        "storage-unknown": (
            tensor(pushed=storage(kind="QInt8Storage")),
            "torch.QInt8Storage: only",
        ),
        "storage-a-dtype": (tensor(pushed=storage(kind="float32")), "no known dtype"),
        "tensor-of-none": (tensor(pushed=b"N"), "has no storage"),
        "persistent-id": (op("/etc/passwd") + b"Q", "outside that is no storage"),
        "class-called": (b"ctorch\nFloatStorage\n)R", "nothing to be called"),
    }
    for label, (pushed, said) in wrong.items():
        yield f"zip-{label}", hand.torch_zip(dictionary(a=pushed)), said
        yield f"legacy-{label}", hand.torch_legacy(dictionary(a=pushed)), said
    one = dictionary(a=tensor())
    nan = {"0": np.full(4, np.nan, np.float32)}
    yield "zip-nan-weights", hand.torch_zip(one, nan), "tensor 'a' holds NaN"
    yield "legacy-nan-weights", hand.torch_legacy(one, nan), "tensor 'a' holds NaN"
    yield "zip-no-dictionary", hand.torch_zip(tensor()), "no dictionary of tensors"
    yield "zip-no-tensors", hand.torch_zip(dictionary(epoch=op(1))), "top are: 'epoch'"
    yield "zip-byteorder", hand.torch_zip(one, byteorder=b"middle"), "byteorder is 'middle'"
    script = archive(("a/data.pkl", b"\x80\x02N."), ("a/constants.pkl", b""), ("a/code/x.py", b""))
    yield "zip-script", script, "TorchScript program"
    yield "zip-two-pickles", archive(("a/data.pkl", b"N."), ("b/data.pkl", b"N.")), "exactly one"
    yield "zip-no-pickle", archive(("a/data.pkl", b"cos\nsystem\n.")), "no pickle of protocol 2"
    tied = b"}(" + op("a0") + tensor((50_000,), pushed=storage(count=50_000)) + b"q\x63"
    tied += b"".join(op(f"a{i}") + b"h\x63" for i in range(1, 2000)) + b"u"
    bytes_under_names = hand.torch_zip(tied, {"0": np.zeros(50_000, np.float32)})
    yield "zip-2000-names-for-one", bytes_under_names, "same bytes under too many names"
    view = storage(view=op(("1", 0, 4)))
    yield "legacy-view", hand.torch_legacy(dictionary(a=tensor(pushed=view))), "view of another"
    yield "legacy-count-lie", hand.torch_legacy(one, count=10**15), "has 1,000,000,000,000,000 ele"
    yield "legacy-count-negative", hand.torch_legacy(one, count=-1), "storage '0' has 18,446"
    yield "legacy-trailing", hand.torch_legacy(one) + b"more", "4 bytes trail"
    long = hand.torch_legacy(one).split(pickle.dumps(1001, 2))
    busy = b"\x80\x02" + b"}0" * 149_000 + b"M\xe9\x03."
    many = long[0] + busy * 2 + b"\x80\x02" + b"}" * 400_000
    yield "legacy-one-bomb-after-another", many, "over 300,000 opcodes"
    unclaimed = {"0": np.zeros(4, np.float32), "1": np.zeros(4, np.float32)}
    yield "legacy-unclaimed", hand.torch_legacy(one, unclaimed), "'1' that no tensor"


def of_pickles():
    def plain(pushed):
        return b"\x80\x02" + pushed + b"."

    for label, pushed in CALL.items():
        yield f"{label}", plain(pushed), f"refers to {NAMED[label]}: only tensors are read"
    reduce = (
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + op((0,)) + op("b") + b"tR"
    )
    dtype = lambda code: b"cnumpy\ndtype\n" + op((code, False, True)) + b"R"  # noqa: E731
    state = lambda shape, code, data: (  # noqa: E731
        reduce + b"(" + op(1) + op(shape) + dtype(code) + b"\x89" + data + b"tb"
    )
    data = b"C\x08" + F4
    text = op("a" * 100_000)
    encode = b"c_codecs\nencode\n(h\x62" + op("latin1") + b"tR"
    yield "numpy-objects", pickle.dumps({"a": np.array([1, "b"], object)}, 4), "dtype '.?O8'"
    yield "numpy-records", pickle.dumps({"a": np.zeros(2, "f4,f4")}, 4), "records|dtype 'V8'"
    yield "numpy-shape-lie", plain(dictionary(a=state((10**9,), "f4", data))), "does not fit its 8"
    yield "numpy-shape-negative", plain(dictionary(a=state((-2,), "f4", data))), "negative"
    yield "numpy-shape-overflow", plain(dictionary(a=state((2**62, 4), "f4", data))), "overflows"
    yield "numpy-no-state", plain(dictionary(a=reduce)), "'a' has no content"
    yield "numpy-state-a-list", plain(dictionary(a=reduce + b"]b")), "unknown form"
    yield "numpy-nan", pickle.dumps({"a": np.array([np.nan])}, 4), "tensor 'a' holds NaN"
    yield "long4-lie", plain(b"\x8b\xff\xff\xff\x7f"), "whole number of 2,147,483,647 bytes"
    yield "long4-negative", plain(b"\x8b\xff\xff\xff\xff"), "whole number of 4,294,967,295 bytes"
    yield "binbytes8-lie", plain(b"\x8e" + struct.pack("<Q", 2**62)), "claims 4,611,686,018,.* left"
    yield "binbytes-lie", plain(b"B" + struct.pack("<I", 2**31)), "claims 2,147,483,648 bytes"
    yield "bytearray8-lie", plain(b"\x96" + struct.pack("<Q", 2**40)), "claims 1,099,511"
    yield "binunicode8-lie", plain(b"\x8d" + struct.pack("<Q", 2**63)), "claims 9,223,372"
    yield "frame-lie", b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.", "claims a frame of 1,152"
    yield "memo-lie", plain(b"}r\xff\xff\xff\x7f"), "memo of 2,147,483,647 objects"
    yield "memo-unknown", plain(b"h\x07"), "that the pickle has not made"
    yield "stack-empty", plain(b"R"), "that the pickle has not made"
    yield "mark-missing", plain(b"t"), "that the pickle has not made"
    yield "only-stop", plain(b""), "it makes nothing"
    yield "deep-lists", plain(b"]" * 140_000 + b"a" * 139_999), "no dictionary of arrays"
    yield "deep-tuples", plain(b")" + b"\x85" * 290_000), "no dictionary of arrays"
    yield "deep-key", plain(b"})" + b"\x85" * 290_000 + b"Ns"), "holds no tensors"
    deep = b"}" + (op("k") + b"}") * 1000 + b"s" * 1000
    yield "deep-dictionaries", plain(deep), "nested over 32 deep"
    circle = b"}q\x01" + op("a") + b"h\x01s"
    yield "dictionary-in-itself", plain(circle), "nested over 32 deep"
    laughs = b"}q\x01" + b"".join(
        b"}(" + op("a") + b"h" + bytes([i]) + op("b") + b"h" + bytes([i]) + b"uq" + bytes([i + 1])
        for i in range(1, 31)
    )
    yield "billion-laughs", plain(laughs), "hold over 20,000 values"
    wide = b"}q\x01(" + b"".join(op(f"{i}") + b"N" for i in range(15_000)) + b"u"
    wide = b"}q\x02(" + op("a") + wide + op("b") + b"h\x01" + b"u"
    yield "too-many-values", plain(wide), "hold over 20,000 values"
    yield "million-dictionaries", plain(b"}" * 1_000_000), "over 300,000 opcodes"
    yield "million-marks", plain(b"(" * 1_000_000), "over 300,000 opcodes"
    yield "million-memos", plain(b"}\x94" * 300_000), "over 300,000 opcodes"
    yield "million-lists", plain(b"]" + b"]Na" * 300_000), "over 300,000 opcodes"
    yield "bytes-over-and-over", plain(text + b"q\x620" + encode * 5000), "makes .* bytes of a file"
    counters = b"}(" + b"".join(op(f"{i}") + b"N" for i in range(20_000)) + b"u\x85q\x63"
    counters += b"ccollections\nCounter\nh\x63R0" * 5000
    yield "copies-over-and-over", plain(counters + b"N"), "no dictionary of arrays"
    arguments = b"(" + b"N" * 100_000 + b"tq\x630" + b"cargparse\nNamespace\nh\x63R" * 9000
    yield "arguments-over-and-over", plain(arguments), "argparse.Namespace, which is nothing"
    long = (
        b"}(" + op("p" * 400_000) + b"}(" + b"".join(op(f"{i}") + b"}" for i in range(9000)) + b"uu"
    )
    yield "prefix-over-and-over", plain(long), "name that is not allowed"
    shared = dict.fromkeys(map(str, range(2000)), np.zeros(100_000, np.float32))
    yield "2000-names-for-one", pickle.dumps(shared, 4), "same bytes under too many names"
    yield "name-no-text", plain(op("os") + b"K\1\x93"), "name that is no text"
    yield "name-without-end", plain(b"c" + b"a" * 1_000_000), "no line of ASCII"
    yield "name-no-ascii", plain(b"c\xff\xfe\nx\n"), "no line of ASCII"
    many = op((2**40,)) + b"R"
    yield "bytes-of-a-number", plain(b"c__builtin__\nbytes\n" + many), "that it does not take"
    yield "instance", plain(b"(" + op(TOUCH) + b"ios\nsystem\n"), "opcode b'i'"
    yield "object", plain(b"(N" + op(TOUCH) + b"o"), "opcode b'o'"
    yield "extension", plain(b"\x82\x01"), r"opcode b'\\x82'"
    yield "buffer", b"\x80\x05\x97.", r"opcode b'\\x97'"
    yield "persistent", plain(op(TOUCH) + b"Q"), "refers to an object outside"
    yield "not-callable", plain(op("os.system") + b")R"), "calls 'os.system', which is nothing"
    yield "named-only", plain(b"cnumpy\nndarray\n)R"), "calls numpy.ndarray, which is nothing"
    yield "wrong-arguments", plain(b"c_codecs\nencode\n)R"), "arguments that it does not take"
    yield "state-of-a-number", plain(b"K\1}b"), "sets the state of a int"
    yield "items-of-a-list", plain(b"](K\1K\2u"), "sets items of a list"
    yield "append-to-none", plain(b"NK\1a"), "appends to a NoneType"
    yield "trailing-bytes", plain(b"}") + b"cos\nsystem\n.", "12 bytes trail"
    yield "text-no-utf-8", plain(b"X\1\0\0\0\xff"), "no UTF-8"
    yield "protocol-in-the-middle", plain(b"}\x80\x09"), "protocol 9; 2 to 5 are read"
    clash = pickle.dumps({"a//b": np.zeros(1), "a": {"b": np.zeros(1)}}, 4)
    yield "two-of-one-name", clash, "'a//b' is there twice"


def of_no_kind():
    yield "empty.pth", b"", "it is empty"
    yield "page.safetensors", b"<!DOCTYPE html><html>404</html>", "header claims"
    yield "page.pth", b"\n<!DOCTYPE html><html>404</html>", "a web page.*What can be read: safetens"
    yield "lfs.pth", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"
    yield "protocol-0.pkl", b"cos\nsystem\n(S'" + TOUCH.encode() + b"'\ntR.", "of unknown kind"
    yield "one.npy", npy(), "single .npy array"
    yield "gzip.pkl", b"\x1f\x8b\x08" + bytes(30), "gzip"
    yield "hdf.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"
    yield "program", b"\x7fELF" + bytes(200), "of unknown kind. What can be read"
    yield "zeros", bytes(1000), "of unknown kind"
    yield "7-bytes.safetensors", bytes(7), "ends after 7 bytes"


def of_no_file(folder):
    """Paths that are no regular files."""
    os.mkfifo(folder / "fifo.pth")
    (folder / "folder.pth").mkdir()
    (folder / "zero.pth").symlink_to("/dev/zero")
    (folder / "loop.pth").symlink_to("loop.pth")
    (folder / "latest").mkdir()
    (folder / "latest" / "checkpoint").write_bytes(bytes(1000))
    (folder / "nothing.index").write_bytes(b"")
    yield folder / "fifo.pth", "no regular file"
    yield folder / "folder.pth", "a folder without a file `checkpoint`"
    yield folder / "zero.pth", "no regular file"
    yield folder / "loop.pth", "cannot be read: .*symbolic links"
    yield folder / "latest", "no model_checkpoint_path"
    yield folder / "nothing", "nothing.data-. are missing"


def write(folder):
    """Writes the corpus; returns [(path, what the refusal must say)]."""
    kinds = {
        "safetensors": of_safetensors,
        "npz": of_npz,
        "torch": of_torch,
        "pickle": of_pickles,
        "other": of_no_kind,
    }
    found = []
    for kind, corpus in kinds.items():
        (folder / kind).mkdir()
        for name, data, said in corpus():
            path = folder / kind / name
            path.write_bytes(data)
            found.append((path, said))
    for kind, make in hand.GOOD.items():  # cut at every tenth
        data = make()
        for tenth in range(1, 10):
            path = folder / f"{kind}-cut-{tenth}"
            path.write_bytes(data[: len(data) * tenth // 10])
            found.append((path, "cut|claims|left|no whole|no JSON|no line"))
    found.extend(of_no_file(folder))
    assert len({path for path, _ in found}) == len(found)
    return found
