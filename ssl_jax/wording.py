"""Words of messages."""


def count(number: int, one: str, several: str = "") -> str:
    """Returns a number with its noun: "1 step", "1,200 steps".

    Args:
      number: the number.
      one: noun in the singular.
      several: noun in the plural; `one` and "s" by default.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
