"""Reads pickles without executing code: an interpreter of the opcodes that tensors need.

Python's own unpickler is not safe, even with a restricted `find_class`: it allocates the memory
that a file claims before it reads, and it crashes on deeply nested keys. This interpreter treats a
name in a pickle as text. A table gives a placeholder for each call, and names outside the table are
refused.

Source: opcodes of protocols 2 to 5 in Python's Lib/pickletools.py.
"""

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from ssl_jax.weights.files.checks import Refused, quote
from ssl_jax.weights.files.placeholders import (
    AllowedNames,
    Buildable,
    GlobalName,
    Ignored,
    set_item,
)

MAX_OPCODES = 300_000  # a ViT-L with its optimizer's state needs 30,000
_MAX_LINE = 256
_MAX_ARGUMENTS = 64


def load(
    file: BinaryIO,
    end: int,
    names: AllowedNames,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Returns the object of one pickle, and leaves the file positioned after it.

    Keys of dictionaries become strings: 1 becomes "1".

    Args:
      file: open file, positioned at the start of the pickle.
      end: position in the file before which the pickle must end.
      names: names that the pickle may refer to, with their placeholders.
      persistent_load: returns the placeholder for a persistent id.

    Raises:
      Refused: if the pickle refers to another name, uses an opcode that tensors do not need, or
        claims bytes beyond the end.
    """
    return _Machine(file, end, names, persistent_load).run()


class _Machine:
    """The pickle machine: a stack, the stacks below its marks, and a memo."""

    def __init__(
        self,
        file: BinaryIO,
        end: int,
        names: AllowedNames,
        persistent_load: Callable[[Any], Any] | None,
    ):
        self.file, self.end, self.names, self.persistent_load = file, end, names, persistent_load
        self.stack: list[Any] = []
        self.stacks_below_marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.bytes_returned = 0  # by calls so far

    def run(self) -> Any:
        if self.read_bytes(2)[:1] != b"\x80":
            raise Refused("it is not a pickle of protocol 2 or later")
        self.file.seek(-2, 1)
        for _ in range(MAX_OPCODES):
            opcode = self.file.read(1)
            if opcode == b".":
                return self.stack.pop() if self.stack else self.refuse("it contains no object")
            if not opcode:
                self.refuse("it is cut here")
            execute = _OPCODES.get(opcode)
            if execute is None:
                self.refuse(f"opcode {opcode!r}, which pickles of tensors do not need")
            try:
                execute(self)
            except (IndexError, KeyError):
                self.refuse("uses an object that the pickle has not created")
        raise Refused(f"its pickle has over {MAX_OPCODES:,} opcodes")

    def refuse(self, problem: str) -> NoReturn:
        raise Refused(f"byte {self.file.tell():,} of its pickle: {problem}")

    def read_bytes(self, length: int) -> bytes:
        left = self.end - self.file.tell()
        if length > left:
            self.refuse(f"claims {length:,} bytes where {max(left, 0):,} are left")
        return self.file.read(length)

    def read_int(self, width: int) -> int:
        return int.from_bytes(self.read_bytes(width), "little")

    def read_line(self) -> str:
        line = self.file.readline(_MAX_LINE)
        if not line.endswith(b"\n") or not line.isascii():
            self.refuse("a name that is not a line of ASCII")
        return line[:-1].decode("ascii")

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.stacks_below_marks.pop()
        return items

    def memoize(self, index: int) -> None:
        if index > MAX_OPCODES:
            self.refuse(f"claims a memo of {index:,} objects")
        self.memo[index] = self.stack[-1]

    def push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self.refuse("a name that is not text")
        dotted = f"{module}.{name}"
        if dotted not in self.names:
            raise Refused(f"its pickle refers to {quote(dotted)[1:-1]}: only tensors are read")
        self.stack.append(GlobalName(dotted))

    def call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        what = function.dotted if isinstance(function, GlobalName) else quote(function)
        placeholder = self.names[what] if isinstance(function, GlobalName) else None
        if placeholder is None or not isinstance(args, tuple) or len(args) > _MAX_ARGUMENTS:
            self.refuse(f"calls {what}, which is not allowed")
        try:
            result = placeholder(*args)
        except TypeError:
            self.refuse(f"calls {what} with invalid arguments")
        self.bytes_returned += len(result) if isinstance(result, bytes) else 0
        if self.bytes_returned > self.end:  # the pickle encodes the same text many times
            self.refuse(f"creates {self.bytes_returned:,} bytes from a file of {self.end:,}")
        self.stack.append(result)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Buildable):
            target.build(state)
        elif not isinstance(target, dict | Ignored):  # attributes of these are never read
            self.refuse(f"sets the state of {quote(target)}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, dict | Ignored):
            self.refuse(f"sets items of {quote(target)}")
        if isinstance(target, dict):
            for i in range(0, len(items), 2):
                set_item(target, items[i], items[i + 1])

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Ignored):
            self.refuse(f"appends to {quote(target)}")
        if isinstance(target, list):
            target.extend(items)

    def push_text(self, width: int, encoding: str = "utf-8") -> None:
        text = self.read_bytes(self.read_int(width))
        try:
            self.stack.append(text.decode(encoding, "surrogatepass"))
        except UnicodeDecodeError:
            self.refuse("a text that is not UTF-8")

    def push_tuple(self, length: int) -> None:
        if len(self.stack) < length:
            raise IndexError
        items = tuple(self.stack[-length:])
        self.stack[-length:] = [items]

    def push_long(self, length: int) -> None:
        if length > 255:
            self.refuse(f"claims an integer of {length:,} bytes")
        self.stack.append(int.from_bytes(self.read_bytes(length), "little", signed=True))

    def push_persistent(self) -> None:
        if self.persistent_load is None:
            self.refuse("refers to an external object")
        else:
            self.stack.append(self.persistent_load(self.stack.pop()))

    def protocol(self) -> None:
        if (version := self.read_int(1)) not in (2, 3, 4, 5):
            self.refuse(f"protocol {version}; supported are 2 to 5")

    def frame(self) -> None:
        length = self.read_int(8)  # not needed for reading, but still checked
        if length > self.end - self.file.tell():
            self.refuse(f"claims a frame of {length:,} bytes")

    def mark(self) -> None:
        self.stacks_below_marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def push_global(self) -> None:
        module = self.read_line()
        self.push_name(module, self.read_line())

    def push_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(module, name)


def _push(create: Callable[["_Machine"], Any]) -> Callable[["_Machine"], None]:
    def push(machine: _Machine) -> None:
        value = create(machine)  # must come first: it may replace machine.stack
        machine.stack.append(value)

    return push


_OPCODES: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.pop_to_mark,
    b"N": _push(lambda m: None),
    b"\x88": _push(lambda m: True),
    b"\x89": _push(lambda m: False),
    b"J": _push(lambda m: int.from_bytes(m.read_bytes(4), "little", signed=True)),
    b"K": _push(lambda m: m.read_int(1)),
    b"M": _push(lambda m: m.read_int(2)),
    b"\x8a": lambda m: m.push_long(m.read_int(1)),
    b"\x8b": lambda m: m.push_long(m.read_int(4)),
    b"G": _push(lambda m: struct.unpack(">d", m.read_bytes(8))[0]),
    b"X": lambda m: m.push_text(4),
    b"\x8c": lambda m: m.push_text(1),
    b"\x8d": lambda m: m.push_text(8),
    b"U": lambda m: m.push_text(1, "latin-1"),  # Python 2's str
    b"T": lambda m: m.push_text(4, "latin-1"),
    b"C": _push(lambda m: m.read_bytes(m.read_int(1))),
    b"B": _push(lambda m: m.read_bytes(m.read_int(4))),
    b"\x8e": _push(lambda m: m.read_bytes(m.read_int(8))),
    b"\x96": _push(lambda m: m.read_bytes(m.read_int(8))),  # a bytearray
    b"}": _push(lambda m: {}),
    b"]": _push(lambda m: []),
    b")": _push(lambda m: ()),
    b"\x8f": _push(lambda m: Ignored()),  # a set
    b"\x91": _push(lambda m: Ignored(m.pop_to_mark())),  # a frozenset
    b"\x90": lambda m: m.append(m.pop_to_mark()),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.pop_to_mark()),
    b"s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"t": _push(lambda m: tuple(m.pop_to_mark())),
    b"\x85": lambda m: m.push_tuple(1),
    b"\x86": lambda m: m.push_tuple(2),
    b"\x87": lambda m: m.push_tuple(3),
    b"q": lambda m: m.memoize(m.read_int(1)),
    b"r": lambda m: m.memoize(m.read_int(4)),
    b"\x94": lambda m: m.memoize(len(m.memo)),
    b"h": _push(lambda m: m.memo[m.read_int(1)]),
    b"j": _push(lambda m: m.memo[m.read_int(4)]),
    b"c": _Machine.push_global,
    b"\x93": _Machine.push_stack_global,
    b"R": _Machine.call,
    b"\x81": _Machine.call,  # NEWOBJ: a class and its arguments
    b"b": _Machine.build,
    b"Q": _Machine.push_persistent,
}
