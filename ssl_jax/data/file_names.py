"""Labels and splits from the names of files: patterns such as "{digit}_{speaker}_{take}"."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from ssl_jax.errors import BAD_CONFIG, Fault, printable

Fields = dict[str, str]  # value of each field of the pattern in one name
_FIELD = re.compile(r"\{(\w+)\}")
_CONDITION = re.compile(r"(\w+)\s*(>=|<=|!=|=|>|<)\s*(.+)")
_SHOWN = 10  # values in a message
_ORDERS: Mapping[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def field_names(pattern: str) -> list[str]:
    """Returns the names of the fields of a pattern, in its order.

    Raises:
      Fault: the pattern has no field, one twice, one whose name is no identifier, or other braces.
    """
    names, rest = _FIELD.findall(pattern), _FIELD.sub("", pattern)
    good = all(name.isidentifier() for name in names) and not set("{}") & set(rest)
    if not names or not good or len(set(names)) < len(names):
        raise Fault(
            f"data.pattern={pattern!r}: name each field once, in braces, by letters, digits and "
            "underscores, such as '{digit}_{speaker}_{take}'; no other braces are allowed",
            BAD_CONFIG,
        )
    return names


def reader(pattern: str) -> Callable[[str], Fields | None]:
    """Returns the function from a name without extension to its fields; None if it does not fit.

    A field stands for one character or more. If a name can be divided in several ways, earlier
    fields are as short as possible.

    Raises:
      Fault: as `field_names`.
    """
    field_names(pattern)
    parts = _FIELD.split(pattern)  # text, field, text, field, ..., text
    texts, fields = parts[::2], parts[1::2]
    pieces = (
        re.escape(text) + f"(?P<{name}>.+?)" for text, name in zip(texts, fields, strict=False)
    )
    expression = re.compile("".join(pieces) + re.escape(texts[-1]))

    def read(name: str) -> Fields | None:
        found = expression.fullmatch(name)
        return found.groupdict() if found else None

    return read


def natural_order(values: Iterable[str]) -> list[str]:
    """Returns the different values, sorted; numbers in them by size: a2 before a10."""

    def key(value: str) -> list[tuple[bool, int, str]]:
        parts = re.split(r"(\d+)", value)
        # Not isdigit: "²" is a digit, but int() refuses it.
        return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]

    return sorted(set(values), key=key)


def is_condition(split: str) -> bool:
    """Tells whether the name of a split is meant as a condition, not as a folder."""
    return any(sign in split for sign in "=<>")


def condition(text: str, values: Mapping[str, Sequence[str]]) -> Callable[[Fields], bool]:
    """Returns the function that tells whether the fields of a file fulfil a condition.

    "take>=5&speaker!=theo|lucas" takes files whose take is at least 5 and whose speaker is neither
    theo nor lucas. The signs are =, !=, <, <=, > and >=; only = and != take several values. Spaces
    around names, signs and values mean nothing.

    Args:
      text: the condition.
      values: all values of every field, by the field's name.

    Raises:
      Fault: the text is no condition on these fields, or compares with a value that no file has;
        the function raises it if a value that must be a number is none.
    """
    known, tests = list(values), []
    for part in text.split("&"):
        found = _CONDITION.fullmatch(part.strip())
        if not found or found[1] not in known:
            raise Fault(
                f"split {text!r}: {part.strip()!r} is neither a folder in data.dir nor a condition "
                f"on a field of data.pattern ({', '.join(known)}), such as '{known[0]}=VALUE', "
                f"'{known[0]}!=VALUE|VALUE' or '{known[-1]}>=NUMBER', joined by '&'",
                BAD_CONFIG,
            )
        name, sign, value = found.groups()
        tests.append(_test(text, name, sign, value, values[name]))
    return lambda fields: all(test(fields) for test in tests)


def _test(
    split: str, name: str, sign: str, value: str, known: Sequence[str]
) -> Callable[[Fields], bool]:
    if sign in ("=", "!="):
        values = [_known_value(one.strip(), name, split, known) for one in value.split("|")]
        return lambda fields: (fields[name] in values) == (sign == "=")
    limit, compare = _number(value, name, split), _ORDERS[sign]
    return lambda fields: compare(_number(fields[name], name, split), limit)


def _known_value(value: str, name: str, split: str, known: Sequence[str]) -> str:
    if value in known:
        return value
    shown = ", ".join(map(printable, known[:_SHOWN])) + (", …" if len(known) > _SHOWN else "")
    raise Fault(
        f"split {split!r}: no file has the value {value!r} of {name}; its values are: {shown}",
        BAD_CONFIG,
    )


def _number(value: str, name: str, split: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise Fault(
            f"split {split!r}: {name} has the value {value!r}, which is no whole number. Compare "
            "words by = or !=",
            BAD_CONFIG,
        ) from None
