"""How the sizes of a run divide over its devices, and the nearest sizes that do."""

from collections.abc import Iterable
from typing import NamedTuple


class Size(NamedTuple):
    """One size of the config.

    Attributes:
      field: its name in the config.
      value: what the config says.
      fits: whether it can be trained so.
      note: what follows from it, or what is wrong.
      valid: the nearest sizes that fit, where this one does not.
    """

    field: str
    value: int
    fits: bool
    note: str
    valid: tuple[int, ...] = ()


def check(
    *,
    batch_size: int,
    devices: int,
    hosts: int = 1,
    microbatch: int = 0,
    bn_group: int = 0,
    views: int = 2,
    queue_size: int = 0,
    fsdp: int = 1,
    slices: int = 1,
) -> list[Size]:
    """All sizes that have to divide, in the order of the config.

    Args:
      views: full-size views of an image, each a row to BatchNorm.
      queue_size: keys of a MoCo queue; 0 for none.
      fsdp: devices that share parameters and optimizer, inside one of `slices` slices.
    """
    found = [_batch(batch_size, devices, hosts)]
    if microbatch:
        found.append(_microbatch(microbatch, batch_size, devices))
    if queue_size:
        found.append(_queue(queue_size, batch_size))
    if bn_group:
        rows = views * (microbatch or batch_size) // devices
        found.append(_bn_group(bn_group, rows, batch_size, views, inside=bool(microbatch)))
    if fsdp > 1:
        found.append(_fsdp(fsdp, devices // slices))
    return found


def problems(sizes: Iterable[Size]) -> list[str]:
    """What is wrong with sizes, each in a sentence that names the nearest that are right."""
    return [
        f"{size.field}={size.value} {size.note}; "
        f"nearest sizes that do: {', '.join(map(str, size.valid))}"
        for size in sizes
        if not size.fits
    ]


def _batch(batch_size: int, devices: int, hosts: int) -> Size:
    if batch_size % devices == 0:
        note = f"{batch_size // devices:,} images a device, {batch_size // hosts:,} a host"
        return Size("train.batch_size", batch_size, True, note)
    below = batch_size // devices * devices
    note = f"does not divide over {devices} devices"
    valid = tuple(size for size in (below, below + devices) if size)
    return Size("train.batch_size", batch_size, False, note, valid)


def _microbatch(microbatch: int, batch_size: int, devices: int) -> Size:
    field = "train.microbatch"
    if batch_size % microbatch == 0 and microbatch % devices == 0:
        note = (
            f"{batch_size // microbatch} micro-batches of {microbatch // devices} images a device"
        )
        return Size(field, microbatch, True, note)
    note = f"has to divide the batch of {batch_size} and be a multiple of {devices} devices"
    sizes = (devices * n for n in _divisors(batch_size // devices)) if devices <= batch_size else ()
    return Size(field, microbatch, False, note, _nearest(microbatch, sizes))


def _queue(queue_size: int, batch_size: int) -> Size:
    field = "method.queue_size"
    steps, rest = divmod(queue_size, batch_size)
    if not rest and steps:
        return Size(field, queue_size, True, f"keys of the last {steps} steps")
    below = steps * batch_size
    valid = tuple(size for size in (below, below + batch_size) if size)
    return Size(field, queue_size, False, f"is no multiple of the batch of {batch_size}", valid)


def _bn_group(bn_group: int, rows: int, batch_size: int, views: int, *, inside: bool) -> Size:
    field, all_rows = "model.bn_group", views * batch_size
    if rows and rows % bn_group == 0:
        note = f"{rows // bn_group} groups inside each device's {rows} rows: no communication"
        return Size(field, bn_group, True, note)
    if not inside and all_rows % bn_group == 0:
        note = f"groups cross devices, which hold {rows} rows each: statistics travel"
        return Size(field, bn_group, True, note)
    # A micro-batch takes its rows from every device: a group of more would cross two of them.
    what = "one device's rows of a micro-batch" if inside else "the batch"
    together = rows if inside else all_rows
    note = f"does not divide {what}: {together} rows ({views} views an image)"
    return Size(field, bn_group, False, note, _nearest(bn_group, _divisors(together)))


def _fsdp(fsdp: int, devices: int) -> Size:
    field = "parallel.fsdp"
    if devices % fsdp == 0:
        note = f"parameters and optimizer are divided over {fsdp} devices"
        return Size(field, fsdp, True, note)
    note = f"does not divide the {devices} devices of a slice"
    return Size(field, fsdp, False, note, _nearest(fsdp, _divisors(devices)))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _nearest(size: int, sizes: Iterable[int]) -> tuple[int, ...]:
    """The largest below and the smallest above."""
    ordered = sorted(sizes)
    below = [n for n in ordered if n < size][-1:]
    return (*below, *[n for n in ordered if n > size][:1])
