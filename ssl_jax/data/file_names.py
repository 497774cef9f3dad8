"""Labels and splits from the names of files: patterns such as "{digit}_{speaker}_{take}"."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping

from ssl_jax.errors import BAD_CONFIG, Fault

Fields = dict[str, str]  # value of each field of the pattern in one name
_FIELD = re.compile(r"\{(\w+)\}")
_CONDITION = re.compile(r"(\w+)(>=|<=|!=|=|>|<)(.+)")
_ORDERS: Mapping[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def field_names(pattern: str) -> list[str]:
    """Returns the names of the fields of a pattern, in its order.

    Raises:
      Fault: the pattern has no field, or one twice.
    """
    names = _FIELD.findall(pattern)
    if not names or len(set(names)) < len(names):
        raise Fault(
            f"data.pattern={pattern!r}: name each field once, in braces, for example "
            "'{digit}_{speaker}_{take}'",
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
        return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]

    return sorted(set(values), key=key)


def condition(text: str, names: Iterable[str]) -> Callable[[Fields], bool]:
    """Returns the function that tells whether the fields of a file fulfil a condition.

    "take>=5&speaker!=theo|lucas" takes files whose take is at least 5 and whose speaker is neither
    theo nor lucas. The signs are =, !=, <, <=, > and >=; only = and != take several values.

    Args:
      text: the condition.
      names: names of the fields.

    Raises:
      Fault: the text is no condition on these fields; the function raises it if a value that must
        be a number is none.
    """
    known, tests = list(names), []
    for part in text.split("&"):
        found = _CONDITION.fullmatch(part.strip())
        if not found or found[1] not in known:
            raise Fault(
                f"split {text!r}: {part.strip()!r} is neither a folder in data.dir nor a condition "
                f"on a field of data.pattern ({', '.join(known)}), such as '{known[0]}=VALUE', "
                f"'{known[0]}!=VALUE|VALUE' or '{known[-1]}>=NUMBER', joined by '&'",
                BAD_CONFIG,
            )
        tests.append(_test(text, *found.groups()))
    return lambda fields: all(test(fields) for test in tests)


def _test(split: str, name: str, sign: str, value: str) -> Callable[[Fields], bool]:
    if sign in ("=", "!="):
        values = value.split("|")
        return lambda fields: (fields[name] in values) == (sign == "=")
    limit, compare = _number(value, name, split), _ORDERS[sign]
    return lambda fields: compare(_number(fields[name], name, split), limit)


def _number(value: str, name: str, split: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise Fault(
            f"split {split!r}: {name} has the value {value!r}, which is no whole number. Compare "
            "words by = or !=",
            BAD_CONFIG,
        ) from None
