"""Checks of the views that a method takes."""

from ssl_jax.methods import Run


def check_views(run: Run, count: int) -> None:
    """Raises ValueError unless every example has `count` views of one size.

    Raises:
      ValueError: another number of views, local crops, or an input without "views".
    """
    if "views" not in run.seen:
        arrays = ", ".join(run.seen)
        raise ValueError(f"this method takes views, but the input has only: {arrays}")
    views = run.seen["views"].shape[0]
    if views != count:
        message = f"this method takes {count} view{'s' * (count > 1)}, got {views}: set "
        raise ValueError(f"{message}augment.views to {count}")
    if "local_views" in run.seen:
        message = "this method takes views of one size, without local crops: set augment.local to"
        raise ValueError(f"{message} {{}}")
