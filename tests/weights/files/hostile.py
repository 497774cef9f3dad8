"""A corpus of hostile and broken files; the generators yield (name, content, expected reason).

The reason is a regular expression for the message with which `files.read` refuses the file.
"""

import json
import os
import pickle
import struct

import handmade as hand
import numpy as np
from handmade import archive, dictionary, entry, npy, push, safetensors, storage, tensor

TOUCH = "touch PWNED"  # the command that a file would run; tests look for the file PWNED
F4 = np.zeros(2, np.float32).tobytes()
CALLS = {
    "os-system": b"cos\nsystem\n" + push((TOUCH,)) + b"R",
    "posix-system": b"cposix\nsystem\n" + push((TOUCH,)) + b"R",
    "eval": b"cbuiltins\neval\n" + push((f"__import__('os').system({TOUCH!r})",)) + b"R",
    "getattr": b"cbuiltins\ngetattr\n(cos\nsystem\n" + push("x") + b"tR",
    "popen": b"csubprocess\nPopen\n" + push((TOUCH,)) + b"R",
    "stack-global": push("os") + push("system") + b"\x93" + push((TOUCH,)) + b"R",
    "torch-load": b"ctorch\nload\n" + push((TOUCH,)) + b"R",
    "nested-name": b"cbuiltins\n__dict__.eval\n" + push((TOUCH,)) + b"R",
}
CALLED_NAMES = {
    "os-system": "os.system",
    "posix-system": "posix.system",
    "eval": "builtins.eval",
    "getattr": "builtins.getattr",
    "popen": "subprocess.Popen",
    "stack-global": "os.system",
    "torch-load": "torch.load",
    "nested-name": "builtins.__dict__.eval",
}


def safetensors_files():
    one = {"a": entry()}
    nan = np.array([1, np.nan], np.float32).tobytes()
    pair = lambda a, b: {"a": entry(offsets=a), "b": entry(offsets=b)}  # noqa: E731
    deep = b'{"a":' + b"[" * 300_000 + b"]" * 300_000 + b"}"
    yield "header-of-4-GB", safetensors(one, F4, 4_000_000_000), "header claims 4,000,000,000 bytes"
    yield "header-longer-than-file", safetensors(one, F4, 500), "header claims 500 bytes; the"
    yield "header-of-2-MB", safetensors(b"{}" + b" " * 2_000_000), "header claims 2,000,002"
    yield "header-2-to-the-64", safetensors(one, F4, 2**64 - 1), "header claims 18,446"
    yield "header-no-json", safetensors(b"{'a': 1}"), "not JSON"
    yield "header-no-utf-8", safetensors(b'{"\xff\xfe": 1}'), "not JSON in UTF-8"
    yield "header-a-list.safetensors", safetensors(b"[1, 2]"), "not an object"
    yield "header-nested", safetensors(deep), "header is nested too deeply"
    yield "header-long-number", safetensors(b'{"a":' + b"9" * 9000 + b"}"), "not JSON"
    text = json.dumps(entry())
    twice = f'{{"a": {text}, "a": {text}}}'.encode()
    yield "duplicate-keys", safetensors(twice, F4), "header has 'a' twice"
    yield "metadata-of-numbers", safetensors({"__metadata__": {"a": 1}, **one}, F4), "__metadata__"
    negative = safetensors({"a": entry(offsets=(-8, 0))}, F4)
    yield "negative-offset", negative, "tensor 'a' has data_offsets that are not two positions"
    yield "boolean-offset", safetensors({"a": entry((0,), (False, 0))}), "data_offsets"
    yield "float-shape", safetensors({"a": entry((2.0,))}, F4), "tensor 'a' has a size"
    yield "negative-shape", safetensors({"a": entry((-1, -2))}, F4), "tensor 'a' has a size"
    yield "overlap", safetensors(pair((0, 8), (4, 12)), F4 + F4), "'a' and 'b' overlap at byte 4"
    yield "same-bytes", safetensors(pair((0, 8), (0, 8)), F4), "'a' and 'b' overlap at byte 0"
    yield "gap", safetensors(pair((0, 8), (12, 20)), F4 * 3), "gap of 4 bytes before tensor 'b'"
    yield "gap-in-front", safetensors({"a": entry(offsets=(8, 16))}, F4 * 2), "gap of 8 bytes"
    yield "trailing-bytes", safetensors(one, F4 + b"#!/bin/sh"), "9 bytes follow"
    yield "data-cut", safetensors(one, F4[:5]), "it is cut: tensors end at byte 8, .* has 5"
    yield "dtype-lie", safetensors({"a": entry(dtype="F64")}, F4), "'a': F64 .* needs 16 bytes"
    yield "dtype-unknown", safetensors({"a": entry(dtype="F8_E4M3")}, F4), "dtype 'F8_E4M3'"
    overflow = safetensors({"a": entry((2**32, 2**32), (0, 0))})
    yield "shape-overflow", overflow, "tensor 'a' has a shape that overflows"
    yield "empty-overflow", safetensors({"a": entry((0, 2**62), (0, 0))}), "overflows"
    yield "rank-1000", safetensors({"a": entry([1] * 1000, (0, 4))}, F4[:4]), "1,000 axes"
    for label, name in {"dots": "../a", "absolute": "/etc/x", "control": "a\0b\x1b[2J"}.items():
        yield f"name-{label}", safetensors({name: entry()}, F4), "name that is not allowed"
    yield "name-long", safetensors({"a" * 5000: entry()}, F4), "name that is not allowed"
    yield (
        "extra-field",
        safetensors({"a": {**entry(), "code": "x"}}, F4),
        "must have exactly the fields",
    )
    yield "nan-weights", safetensors({"w": entry()}, nan), "tensor 'w' holds NaN or infinity"
    yield "bool-of-7", safetensors({"b": entry((1,), (0, 1), "BOOL")}, b"\7"), "booleans that"
    yield "no-tensors", safetensors({}), "it holds no tensors"


def patched(data, changes):
    """Returns the zip with changed bytes in the headers of its first entry.

    `changes` are (offset in the local header or None, offset in the central header, value).
    """
    data = bytearray(data)
    local, central = data.index(b"PK\3\4"), data.index(b"PK\1\2")
    for local_offset, central_offset, value in changes:
        if local_offset is not None:
            data[local + local_offset : local + local_offset + len(value)] = value
        data[central + central_offset : central + central_offset + len(value)] = value
    return bytes(data)


def repeat_record(data, count, names):
    """Returns the zip with its first central record repeated `count` times.

    `names` maps the number of a repetition to a name, which must not be longer than the original.
    """
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    head, name_length = data[start : start + 46], data[start + 28]
    records = b"".join(head + names(i).encode().ljust(name_length, b"_") for i in range(count))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(records), start, 0)
    assert end > start
    return data[:start] + records + tail


def npz_files():
    good = archive(("a.npy", npy()))
    length = struct.pack("<I", len(npy()))
    zeros = npy(np.zeros(10_000_000, np.float32))
    bomb = archive(("a.npy", zeros), deflate=True)
    small_length = struct.pack("<I", len(npy(np.zeros(1000, np.float32))))
    objects = npy(descr="|O", data=pickle.dumps([1, "a"]))
    yield "zip-bomb", bomb, "claim to expand to 40,000,.* bytes"
    yield "zip-bomb-that-lies", patched(bomb, [(22, 24, small_length)]), "a.npy"
    yield "object-array", archive(("a.npy", objects)), r"dtype '\|O'; only numeric"
    records = npy(descr=[("x", "<f4"), ("y", "<f4")])
    yield "structured-array", archive(("a.npy", records)), "not describe a numeric array"
    yield "bfloat16-as-void", archive(("a.npy", npy(descr="<V4"))), "dtype '<V4'"
    yield "header-lie", archive(("a.npy", npy(shape=(10**9,)))), "header needs 4,000,.* entry has"
    yield "header-too-small", archive(("a.npy", npy(shape=(1,)))), "its header needs"
    yield "header-negative", archive(("a.npy", npy(shape=(-2,)))), "not describe a numeric array"
    yield "header-overflow", archive(("a.npy", npy(shape=(2**40, 2**40)))), "overflows"
    yield "header-of-60-KB", archive(("a.npy", npy(length=60_000))), "header claims 60,000 bytes"
    code = b"\x93NUMPY\1\0\x20\0" + b"__import__('os').system('true')\n"
    yield "header-of-code", archive(("a.npy", code)), "not describe a numeric array"
    nested = b"\x93NUMPY\1\0\xb8\x0b" + b"(" * 3000
    yield "header-nested", archive(("a.npy", nested)), "not describe a numeric array"
    yield "no-npy-inside", archive(("a.npy", b"hello, world")), "does not start like a .npy"
    yield "other-entry", archive(("a.npy", npy()), ("setup.py", b"x")), "'setup.py' is not a .npy"
    yield "entry-twice", archive(("a.npy", npy()), ("a.npy", npy())), "'a.npy' occurs twice"
    yield "entry-dots", archive(("../x.npy", npy())), r"entry '../x.npy' leaves the archive"
    yield "entry-absolute", archive(("/etc/x.npy", npy())), "leaves the archive"
    backslash = archive(("b.npy", npy())).replace(b"b.npy", b"\\.npy")
    yield "entry-backslash", backslash, "leaves the archive"
    yield "entry-drive", archive(("C:x.npy", npy())), "leaves the archive"
    nul = archive(("abcd.npy", npy())).replace(b"abcd.npy", b"a\0.d.npy")
    yield "entry-null-byte", nul, "name that is not allowed"
    yield "encrypted", patched(good, [(6, 8, b"\1\0")]), "'a.npy' is encrypted"
    yield "method-bzip2", patched(good, [(8, 10, b"\x0c\0")]), "uses compression method 12"
    yield "wrong-crc", good.replace(npy(), npy(np.ones(2, np.float32))), "CRC"
    yield (
        "stored-two-sizes",
        patched(good, [(22, 24, b"\xff\xff\0\0")]),
        "claims two different sizes",
    )
    beyond = patched(good, [(18, 20, length), (None, 42, b"\xff\xff\0\0")])
    yield "entry-beyond-file", beyond, "ends beyond the file"
    same = repeat_record(archive(("a0000.npy", npy(np.ones(30_000)))), 30, lambda i: f"a{i:04}.npy")
    yield "overlapping-entries", same, "entries overlap"
    large_directory = repeat_record(good, 40_000, lambda i: f"{i % 10}.npy")
    many_entries = repeat_record(good, 15_000, lambda i: f"{i:05x}")
    yield "directory-of-15000", many_entries, "entries overlap|is not a .npy"
    yield "directory-of-2-MB", large_directory, "directory claims"
    yield "empty-archive", b"PK\5\6" + bytes(18), "holds no tensors"
    yield "directory-missing", good[: good.index(b"PK\1\2")], "not a complete zip archive"
    texts = npy(descr="<U3", shape=(1,), data=bytes(12))
    yield "list-of-texts", archive(("a.npy", texts)), "holds text; only"
    text = npy(descr="<U1", shape=(), data=b"\xff\xff\xff\xff")
    yield "text-no-unicode", archive(("a.npy", text)), "not valid Unicode"
    yield "infinite-weights", archive(("w.npy", npy(np.array([np.inf])))), "'w' holds NaN or infin"


def torch_files():
    for label, code in CALLS.items():
        for format, write in (("zip", hand.torch_zip), ("legacy", hand.torch_legacy)):
            yield (
                f"{format}-{label}",
                write(dictionary(a=code)),
                f"refers to {CALLED_NAMES[label]}: only",
            )
    wrong = {
        "storage-out-of-bounds": (tensor((5,)), "'0' reaches beyond it: shape .5,."),
        "offset-out-of-bounds": (tensor((2,), offset=3), "reaches beyond it"),
        "stride-out-of-bounds": (tensor((2, 2), (3, 1)), "reaches beyond it"),
        "negative-stride": (tensor((4,), (-1,)), "stride or offset that is neg"),
        "negative-offset": (tensor((1,), offset=-1), "stride or offset that is negative"),
        "negative-size": (tensor((-4,)), "size that is negative"),
        "expanded-to-4-TB": (tensor((10**12,), (0,)), "reaches beyond it"),
        "shape-overflow": (tensor((2**40, 2**40), (0, 0)), "overflows"),
        "strides-missing": (tensor((2, 2), (1,)), "2 axes and 1 strides"),
        "a-million-axes": (tensor((1,) * 100_000, (0,) * 100_000), "100,000 axes"),
        "storage-lie": (tensor(storage_code=storage(count=400)), "storage '0' has"),
        "storage-of-exabytes": (tensor(storage_code=storage(count=2**62)), "overflows"),
        "storage-dots": (
            tensor(storage_code=storage("../../etc/passwd")),
            "passwd', which is not a number",
        ),
        "storage-missing": (
            tensor(storage_code=storage("7")),
            "storage '7' is missing|'0' that no",
        ),
        "storage-unknown": (
            tensor(storage_code=storage(kind="QInt8Storage")),
            "torch.QInt8Storage: only",
        ),
        "storage-a-dtype": (tensor(storage_code=storage(kind="float32")), "unknown dtype"),
        "tensor-of-none": (tensor(storage_code=b"N"), "has no storage"),
        "conjugate": (tensor(bits={"conj": True}), "has bits that are not supported"),
        "bits-of-another-device": (tensor(bits={"neg": True, "x": True}), "has bits that are not"),
        "bits-not-a-dictionary": (tensor(bits=[1]), "has bits that are not supported"),
        "negative-booleans": (
            tensor(storage_code=storage(kind="BoolStorage"), bits={"neg": True}),
            "has bits that are not supported",
        ),
        "persistent-id": (push("/etc/passwd") + b"Q", "external object that is not a storage"),
        "class-called": (b"ctorch\nFloatStorage\n)R", "FloatStorage, which is not allowed"),
    }
    for label, (code, reason) in wrong.items():
        yield f"zip-{label}", hand.torch_zip(dictionary(a=code)), reason
        yield f"legacy-{label}", hand.torch_legacy(dictionary(a=code)), reason
    one = dictionary(a=tensor())
    nan = {"0": np.full(4, np.nan, np.float32)}
    yield "zip-nan-weights", hand.torch_zip(one, nan), "tensor 'a' holds NaN"
    yield "legacy-nan-weights", hand.torch_legacy(one, nan), "tensor 'a' holds NaN"
    yield "zip-no-dictionary", hand.torch_zip(tensor()), "not a dictionary of tensors"
    yield "zip-no-tensors", hand.torch_zip(dictionary(epoch=push(1))), "keys are: 'epoch'"
    yield "zip-byteorder", hand.torch_zip(one, byteorder=b"middle"), "byteorder is 'middle'"
    script = archive(("a/data.pkl", b"\x80\x02N."), ("a/constants.pkl", b""), ("a/code/x.py", b""))
    yield "zip-script", script, "TorchScript program"
    yield "zip-two-pickles", archive(("a/data.pkl", b"N."), ("b/data.pkl", b"N.")), "exactly one"
    yield "zip-no-pickle", archive(("a/data.pkl", b"cos\nsystem\n.")), "not a pickle of protocol 2"
    tied = b"}(" + push("a0") + tensor((50_000,), storage_code=storage(count=50_000)) + b"q\x63"
    tied += b"".join(push(f"a{i}") + b"h\x63" for i in range(1, 2000)) + b"u"
    shared_bytes = hand.torch_zip(tied, {"0": np.zeros(50_000, np.float32)})
    yield "zip-2000-names-for-one", shared_bytes, "too many names share the same bytes"
    view = storage(view=push(("1", 0, 4)))
    yield (
        "legacy-view",
        hand.torch_legacy(dictionary(a=tensor(storage_code=view))),
        "view of another",
    )
    yield "legacy-count-lie", hand.torch_legacy(one, count=10**15), "has 1,000,000,000,000,000 ele"
    yield "legacy-count-negative", hand.torch_legacy(one, count=-1), "storage '0' has 18,446"
    yield "legacy-trailing", hand.torch_legacy(one) + b"more", "4 bytes follow"
    parts = hand.torch_legacy(one).split(pickle.dumps(1001, 2))
    busy_pickle = b"\x80\x02" + b"}0" * 149_000 + b"M\xe9\x03."
    many_pickles = parts[0] + busy_pickle * 2 + b"\x80\x02" + b"}" * 400_000
    yield "legacy-one-bomb-after-another", many_pickles, "over 300,000 opcodes"
    unclaimed = {"0": np.zeros(4, np.float32), "1": np.zeros(4, np.float32)}
    yield "legacy-unclaimed", hand.torch_legacy(one, unclaimed), "'1' that no tensor"


def pickle_files():
    def plain(code):
        return b"\x80\x02" + code + b"."

    for label, code in CALLS.items():
        yield f"{label}", plain(code), f"refers to {CALLED_NAMES[label]}: only tensors are read"
    reduce = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    reduce += push((0,)) + push("b") + b"tR"
    dtype = lambda code: b"cnumpy\ndtype\n" + push((code, False, True)) + b"R"  # noqa: E731
    state = lambda shape, code, data: (  # noqa: E731
        reduce + b"(" + push(1) + push(shape) + dtype(code) + b"\x89" + data + b"tb"
    )
    data = b"C\x08" + F4
    text = push("a" * 100_000)
    encode = b"c_codecs\nencode\n(h\x62" + push("latin1") + b"tR"
    yield "numpy-objects", pickle.dumps({"a": np.array([1, "b"], object)}, 4), "dtype '.?O8'"
    yield "numpy-records", pickle.dumps({"a": np.zeros(2, "f4,f4")}, 4), "records|dtype 'V8'"
    yield "numpy-shape-lie", plain(dictionary(a=state((10**9,), "f4", data))), "does not fit its 8"
    yield "numpy-shape-negative", plain(dictionary(a=state((-2,), "f4", data))), "negative"
    yield "numpy-shape-overflow", plain(dictionary(a=state((2**62, 4), "f4", data))), "overflows"
    yield "numpy-no-state", plain(dictionary(a=reduce)), "'a' has no content"
    yield "numpy-state-a-list", plain(dictionary(a=reduce + b"]b")), "unknown form"
    yield "numpy-nan", pickle.dumps({"a": np.array([np.nan])}, 4), "tensor 'a' holds NaN"
    yield "long4-lie", plain(b"\x8b\xff\xff\xff\x7f"), "an integer of 2,147,483,647 bytes"
    yield "long4-negative", plain(b"\x8b\xff\xff\xff\xff"), "an integer of 4,294,967,295 bytes"
    yield "binbytes8-lie", plain(b"\x8e" + struct.pack("<Q", 2**62)), "claims 4,611,686,018,.* left"
    yield "binbytes-lie", plain(b"B" + struct.pack("<I", 2**31)), "claims 2,147,483,648 bytes"
    yield "bytearray8-lie", plain(b"\x96" + struct.pack("<Q", 2**40)), "claims 1,099,511"
    yield "binunicode8-lie", plain(b"\x8d" + struct.pack("<Q", 2**63)), "claims 9,223,372"
    yield "frame-lie", b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.", "claims a frame of 1,152"
    yield "memo-lie", plain(b"}r\xff\xff\xff\x7f"), "memo of 2,147,483,647 objects"
    yield "memo-unknown", plain(b"h\x07"), "that the pickle has not created"
    yield "stack-empty", plain(b"R"), "that the pickle has not created"
    yield "mark-missing", plain(b"t"), "that the pickle has not created"
    yield "only-stop", plain(b""), "it contains no object"
    yield "deep-lists", plain(b"]" * 140_000 + b"a" * 139_999), "not a dictionary of arrays"
    yield "deep-tuples", plain(b")" + b"\x85" * 290_000), "not a dictionary of arrays"
    yield "deep-key", plain(b"})" + b"\x85" * 290_000 + b"Ns"), "holds no tensors"
    deep = b"}" + (push("k") + b"}") * 1000 + b"s" * 1000
    yield "deep-dictionaries", plain(deep), "nested more than 32 levels deep"
    circle = b"}q\x01" + push("a") + b"h\x01s"
    yield "dictionary-in-itself", plain(circle), "nested more than 32 levels deep"
    laughs = b"}q\x01"
    for i in range(1, 31):
        get = b"h" + bytes([i])
        laughs += b"}(" + push("a") + get + push("b") + get + b"uq" + bytes([i + 1])
    yield "billion-laughs", plain(laughs), "hold more than 20,000 values"
    wide = b"}q\x01(" + b"".join(push(f"{i}") + b"N" for i in range(15_000)) + b"u"
    wide = b"}q\x02(" + push("a") + wide + push("b") + b"h\x01" + b"u"
    yield "too-many-values", plain(wide), "hold more than 20,000 values"
    yield "million-dictionaries", plain(b"}" * 1_000_000), "over 300,000 opcodes"
    yield "million-marks", plain(b"(" * 1_000_000), "over 300,000 opcodes"
    yield "million-memos", plain(b"}\x94" * 300_000), "over 300,000 opcodes"
    yield "million-lists", plain(b"]" + b"]Na" * 300_000), "over 300,000 opcodes"
    yield (
        "bytes-over-and-over",
        plain(text + b"q\x620" + encode * 5000),
        "creates .* bytes from a file",
    )
    counters = b"}(" + b"".join(push(f"{i}") + b"N" for i in range(20_000)) + b"u\x85q\x63"
    counters += b"ccollections\nCounter\nh\x63R0" * 5000
    yield "copies-over-and-over", plain(counters + b"N"), "not a dictionary of arrays"
    arguments = b"(" + b"N" * 100_000 + b"tq\x630" + b"cargparse\nNamespace\nh\x63R" * 9000
    yield "arguments-over-and-over", plain(arguments), "argparse.Namespace, which is not"
    items = b"".join(push(f"{i}") + b"}" for i in range(9000))
    long = b"}(" + push("p" * 400_000) + b"}(" + items + b"uu"
    yield "prefix-over-and-over", plain(long), "name that is not allowed"
    shared = dict.fromkeys(map(str, range(2000)), np.zeros(100_000, np.float32))
    yield "2000-names-for-one", pickle.dumps(shared, 4), "too many names share the same bytes"
    yield "name-no-text", plain(push("os") + b"K\1\x93"), "name that is not text"
    yield "name-without-end", plain(b"c" + b"a" * 1_000_000), "not a line of ASCII"
    yield "name-no-ascii", plain(b"c\xff\xfe\nx\n"), "not a line of ASCII"
    call = push((2**40,)) + b"R"
    yield "bytes-of-a-number", plain(b"c__builtin__\nbytes\n" + call), "with invalid arguments"
    yield "instance", plain(b"(" + push(TOUCH) + b"ios\nsystem\n"), "opcode b'i'"
    yield "object", plain(b"(N" + push(TOUCH) + b"o"), "opcode b'o'"
    yield "extension", plain(b"\x82\x01"), r"opcode b'\\x82'"
    yield "buffer", b"\x80\x05\x97.", r"opcode b'\\x97'"
    yield "persistent", plain(push(TOUCH) + b"Q"), "refers to an external object"
    yield "not-callable", plain(push("os.system") + b")R"), "calls 'os.system', which is not"
    yield "named-only", plain(b"cnumpy\nndarray\n)R"), "calls numpy.ndarray, which is not"
    yield "wrong-arguments", plain(b"c_codecs\nencode\n)R"), "encode with invalid arguments"
    yield "state-of-a-number", plain(b"K\1}b"), "sets the state of a int"
    yield "items-of-a-list", plain(b"](K\1K\2u"), "sets items of a list"
    yield "append-to-none", plain(b"NK\1a"), "appends to a NoneType"
    yield "trailing-bytes", plain(b"}") + b"cos\nsystem\n.", "12 bytes follow"
    yield "text-no-utf-8", plain(b"X\1\0\0\0\xff"), "not UTF-8"
    yield "protocol-in-the-middle", plain(b"}\x80\x09"), "protocol 9; supported are 2 to 5"
    clash = pickle.dumps({"a//b": np.zeros(1), "a": {"b": np.zeros(1)}}, 4)
    yield "two-of-one-name", clash, "'a//b' occurs twice"


def unknown_files():
    yield "empty.pth", b"", "it is empty"
    yield "page.safetensors", b"<!DOCTYPE html><html>404</html>", "header claims"
    yield "page.pth", b"\n<!DOCTYPE html><html>404</html>", "a web page.*Supported are: safetensors"
    yield "lfs.pth", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"
    yield "protocol-0.pkl", b"cos\nsystem\n(S'" + TOUCH.encode() + b"'\ntR.", "of unknown kind"
    yield "one.npy", npy(), "single .npy array"
    yield "gzip.pkl", b"\x1f\x8b\x08" + bytes(30), "gzip"
    yield "hdf.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"
    yield "program", b"\x7fELF" + bytes(200), "of unknown kind. Supported are"
    yield "zeros", bytes(1000), "of unknown kind"
    yield "7-bytes.safetensors", bytes(7), "ends after 7 bytes"


def special_files(folder):
    """Yields (path, expected reason) of paths that are not regular files."""
    os.mkfifo(folder / "fifo.pth")
    (folder / "folder.pth").mkdir()
    (folder / "zero.pth").symlink_to("/dev/zero")
    (folder / "loop.pth").symlink_to("loop.pth")
    (folder / "latest").mkdir()
    (folder / "latest" / "checkpoint").write_bytes(bytes(1000))
    (folder / "nothing.index").write_bytes(b"")
    yield folder / "fifo.pth", "not a regular file"
    yield folder / "folder.pth", "a folder without a file `checkpoint`"
    yield folder / "zero.pth", "not a regular file"
    yield folder / "loop.pth", "cannot be read: .*symbolic links"
    yield folder / "latest", "no model_checkpoint_path"
    yield folder / "nothing", "nothing.data-. are missing"


def write(folder):
    """Writes the corpus and returns [(path, expected reason)]."""
    kinds = {
        "safetensors": safetensors_files,
        "npz": npz_files,
        "torch": torch_files,
        "pickle": pickle_files,
        "other": unknown_files,
    }
    corpus = []
    for kind, generate in kinds.items():
        (folder / kind).mkdir()
        for name, data, reason in generate():
            path = folder / kind / name
            path.write_bytes(data)
            corpus.append((path, reason))
    for kind, make in hand.VALID.items():  # valid files, cut after 10 %, 20 %, ... 90 %
        data = make()
        for tenth in range(1, 10):
            path = folder / f"{kind}-cut-{tenth}"
            path.write_bytes(data[: len(data) * tenth // 10])
            corpus.append((path, "cut|claims|left|not a complete|not JSON|not a line"))
    corpus.extend(special_files(folder))
    assert len({path for path, _ in corpus}) == len(corpus)
    return corpus
