"""Text of others, made harmless for one line."""


def clean(value: str, limit: int = 300) -> str:
    """On one line, without control characters, of at most `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
