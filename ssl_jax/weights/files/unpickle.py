"""A reader of pickles that runs nothing: an interpreter of those opcodes that tensors need.

Python's own unpickler is never asked, not even with a `find_class` that refuses: it reserves the
memory that a file claims before it reads, and dies of deeply nested keys. Here a name in a pickle
is a text; what "calling" it gives stands in a table of our own functions, and no other name is
allowed. Opcodes: Lib/pickletools.py of Python, protocols 2 to 5.
"""

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from ssl_jax.weights.files.checks import Refused, quote
from ssl_jax.weights.files.stand_ins import Built, Inert, Name, Names, put

MAX_OPCODES = 500_000  # a ViT-L with its optimizer's state has 30,000
_MAX_LINE = 256
_MAX_ARGUMENTS = 64


def load(
    file: BinaryIO, end: int, names: Names, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The object of one pickle; the file stands behind its STOP afterwards.

    Keys of dictionaries come as texts: 1 as "1".

    Args:
      file: at the pickle's start.
      end: position in the file that the pickle may not pass.
      names: that it may refer to.
      persistent: what stands for a persistent id.

    Raises:
      Refused: a name beyond `names`, an opcode that tensors do not need, sizes beyond the end.
    """
    return _Machine(file, end, names, persistent).run()


class _Machine:
    """The stack, the stacks below its marks, and the memo of one pickle."""

    def __init__(
        self, file: BinaryIO, end: int, names: Names, persistent: Callable[[Any], Any] | None
    ):
        self.file, self.end, self.names, self.persistent = file, end, names, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.made = 0  # bytes that calls gave

    def run(self) -> Any:
        if self.raw(2)[:1] != b"\x80":
            raise Refused("it is no pickle of protocol 2 or later")
        self.file.seek(-2, 1)
        for _ in range(MAX_OPCODES):
            opcode = self.file.read(1)
            if opcode == b".":
                return self.stack.pop() if self.stack else self.refuse("it makes nothing")
            do = _OPCODES.get(opcode)
            if do is None:
                self.refuse(f"opcode {opcode!r}, which pickles of tensors do not have")
            try:
                do(self)
            except (IndexError, KeyError):
                self.refuse("something that the pickle has not made")
        raise Refused(f"its pickle has over {MAX_OPCODES:,} opcodes")

    def refuse(self, what: str) -> NoReturn:
        raise Refused(f"byte {self.file.tell():,} of its pickle: {what}")

    def raw(self, length: int) -> bytes:
        left = self.end - self.file.tell()
        if length > left:
            self.refuse(f"claims {length:,} bytes where {max(left, 0):,} are left")
        return self.file.read(length)

    def number(self, width: int) -> int:
        return int.from_bytes(self.raw(width), "little")

    def line(self) -> str:
        line = self.file.readline(_MAX_LINE)
        if not line.endswith(b"\n") or not line.isascii():
            self.refuse("a name that is no line of ASCII")
        return line[:-1].decode("ascii")

    def above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def remember(self, index: int) -> None:
        if index > MAX_OPCODES:
            self.refuse(f"claims a memo of {index:,} objects")
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        dotted = f"{module}.{name}"
        if not isinstance(module, str) or not isinstance(name, str) or dotted not in self.names:
            raise Refused(f"its pickle refers to {quote(dotted)[1:-1]}: only tensors are read")
        self.stack.append(Name(dotted))

    def call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        what = function.dotted if isinstance(function, Name) else quote(function)
        stand_in = self.names[what] if isinstance(function, Name) else None
        if stand_in is None or not isinstance(args, tuple) or len(args) > _MAX_ARGUMENTS:
            self.refuse(f"calls {what}, which is nothing to be called")
        try:
            result = stand_in(*args)
        except TypeError:
            self.refuse(f"calls {what} with arguments that it does not take")
        self.made += len(result) if isinstance(result, bytes) else 0
        if self.made > self.end:  # the same text, over and over
            self.refuse(f"makes {self.made:,} bytes of a file of {self.end:,}")
        self.stack.append(result)

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Built):
            target.build(state)
        elif not isinstance(target, dict | Inert):  # whose attributes nobody reads
            self.refuse(f"sets the state of {quote(target)}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, dict | Inert):
            self.refuse(f"sets items of {quote(target)}")
        if isinstance(target, dict):
            for i in range(0, len(items), 2):
                put(target, items[i], items[i + 1])

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Inert):
            self.refuse(f"appends to {quote(target)}")
        if isinstance(target, list):
            target.extend(items)

    def push_text(self, width: int, encoding: str = "utf-8") -> None:
        raw = self.raw(self.number(width))
        try:
            self.stack.append(raw.decode(encoding, "surrogatepass"))
        except UnicodeDecodeError:
            self.refuse("a text that is no UTF-8")

    def push_tuple(self, length: int) -> None:
        if len(self.stack) < length:
            raise IndexError
        items = tuple(self.stack[-length:])
        self.stack[-length:] = [items]

    def push_long(self, length: int) -> None:
        if length > 255:
            self.refuse(f"claims a whole number of {length:,} bytes")
        self.stack.append(int.from_bytes(self.raw(length), "little", signed=True))

    def push_persistent(self) -> None:
        if self.persistent is None:
            self.refuse("refers to an object outside of it")
        else:
            self.stack.append(self.persistent(self.stack.pop()))

    def protocol(self) -> None:
        if (version := self.number(1)) not in (2, 3, 4, 5):
            self.refuse(f"protocol {version}; 2 to 5 are read")

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.above_mark()

    def push_global(self) -> None:
        module = self.line()
        self.name(module, self.line())

    def push_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)


def _push(make: Callable[["_Machine"], Any]) -> Callable[["_Machine"], None]:
    def push(machine: _Machine) -> None:
        value = make(machine)  # which may change what the stack is
        machine.stack.append(value)

    return push


_OPCODES: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _Machine.protocol,
    b"\x95": lambda m: m.number(8),  # a frame, whose length is of no use here
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.above_mark,
    b"N": _push(lambda m: None),
    b"\x88": _push(lambda m: True),
    b"\x89": _push(lambda m: False),
    b"J": _push(lambda m: int.from_bytes(m.raw(4), "little", signed=True)),
    b"K": _push(lambda m: m.number(1)),
    b"M": _push(lambda m: m.number(2)),
    b"\x8a": lambda m: m.push_long(m.number(1)),
    b"\x8b": lambda m: m.push_long(m.number(4)),
    b"G": _push(lambda m: struct.unpack(">d", m.raw(8))[0]),
    b"X": lambda m: m.push_text(4),
    b"\x8c": lambda m: m.push_text(1),
    b"\x8d": lambda m: m.push_text(8),
    b"U": lambda m: m.push_text(1, "latin-1"),  # Python 2's str
    b"T": lambda m: m.push_text(4, "latin-1"),
    b"C": _push(lambda m: m.raw(m.number(1))),
    b"B": _push(lambda m: m.raw(m.number(4))),
    b"\x8e": _push(lambda m: m.raw(m.number(8))),
    b"\x96": _push(lambda m: m.raw(m.number(8))),  # a bytearray
    b"}": _push(lambda m: {}),
    b"]": _push(lambda m: []),
    b")": _push(lambda m: ()),
    b"\x8f": _push(lambda m: Inert()),  # a set
    b"\x91": _push(lambda m: Inert(m.above_mark())),  # a frozenset
    b"\x90": lambda m: m.append(m.above_mark()),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.above_mark()),
    b"s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    b"u": lambda m: m.set_items(m.above_mark()),
    b"t": _push(lambda m: tuple(m.above_mark())),
    b"\x85": lambda m: m.push_tuple(1),
    b"\x86": lambda m: m.push_tuple(2),
    b"\x87": lambda m: m.push_tuple(3),
    b"q": lambda m: m.remember(m.number(1)),
    b"r": lambda m: m.remember(m.number(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": _push(lambda m: m.memo[m.number(1)]),
    b"j": _push(lambda m: m.memo[m.number(4)]),
    b"c": _Machine.push_global,
    b"\x93": _Machine.push_stack_global,
    b"R": _Machine.call,
    b"\x81": _Machine.call,  # NEWOBJ: a class and its arguments
    b"b": _Machine.build,
    b"Q": _Machine.push_persistent,
}
