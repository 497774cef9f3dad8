"""Checks that the sizes of a run divide over its devices, and suggests the nearest valid sizes."""

from collections.abc import Iterable
from typing import NamedTuple


class Size(NamedTuple):
    """A size of the config and the result of its check.

    Attributes:
      field: name of the config field.
      value: value in the config.
      fits: whether the run can use this value.
      note: consequence of the value, or what is wrong with it.
      valid: nearest valid values; empty if this one fits.
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
    """Checks all sizes that must divide; returns them in the order of the config.

    Args:
      batch_size: images in the global batch.
      devices: number of devices.
      hosts: number of hosts.
      microbatch: images in a micro-batch; 0 for none.
      bn_group: rows that share BatchNorm statistics; 0 for the whole batch.
      views: full-size views per image, each a row of BatchNorm.
      queue_size: keys in a MoCo queue; 0 for none.
      fsdp: number of devices that share one copy of the parameters and optimizer state. These
        devices must belong to one slice.
      slices: number of slices.
    """
    sizes = [_batch(batch_size, devices, hosts)]
    if microbatch:
        sizes.append(_microbatch(microbatch, batch_size, devices))
    if queue_size:
        sizes.append(_queue(queue_size, batch_size))
    if bn_group:
        rows = views * (microbatch or batch_size) // devices
        sizes.append(_bn_group(bn_group, rows, batch_size, views, inside=bool(microbatch)))
    if fsdp > 1:
        sizes.append(_fsdp(fsdp, devices // slices))
    return sizes


def problems(sizes: Iterable[Size]) -> list[str]:
    """Returns one message per size that does not fit, with the nearest valid sizes."""
    return [
        f"{size.field}={size.value} {size.note}; "
        f"nearest valid sizes: {', '.join(map(str, size.valid))}"
        for size in sizes
        if not size.fits
    ]


def _batch(batch_size: int, devices: int, hosts: int) -> Size:
    if batch_size % devices == 0:
        note = f"{batch_size // devices:,} images per device, {batch_size // hosts:,} per host"
        return Size("train.batch_size", batch_size, True, note)
    below = batch_size // devices * devices
    note = f"does not divide over {devices} devices"
    valid = tuple(size for size in (below, below + devices) if size)
    return Size("train.batch_size", batch_size, False, note, valid)


def _microbatch(microbatch: int, batch_size: int, devices: int) -> Size:
    field = "train.microbatch"
    if batch_size % microbatch == 0 and microbatch % devices == 0:
        count, images = batch_size // microbatch, microbatch // devices
        note = f"{count} micro-batches of {images} images per device"
        return Size(field, microbatch, True, note)
    note = f"must divide the batch of {batch_size} and be a multiple of {devices} devices"
    sizes = (devices * n for n in _divisors(batch_size // devices)) if devices <= batch_size else ()
    return Size(field, microbatch, False, note, _nearest(microbatch, sizes))


def _queue(queue_size: int, batch_size: int) -> Size:
    field = "method.queue_size"
    steps, rest = divmod(queue_size, batch_size)
    if not rest and steps:
        return Size(field, queue_size, True, f"keys of the last {steps} steps")
    below = steps * batch_size
    valid = tuple(size for size in (below, below + batch_size) if size)
    note = f"is not a multiple of the batch of {batch_size}"
    return Size(field, queue_size, False, note, valid)


def _bn_group(bn_group: int, rows: int, batch_size: int, views: int, *, inside: bool) -> Size:
    field, all_rows = "model.bn_group", views * batch_size
    if rows and rows % bn_group == 0:
        note = f"{rows // bn_group} groups inside each device's {rows} rows: no communication"
        return Size(field, bn_group, True, note)
    if not inside and all_rows % bn_group == 0:
        note = f"groups span devices with {rows} rows each: devices exchange statistics"
        return Size(field, bn_group, True, note)
    # A micro-batch takes rows from every device, so a larger group would span two micro-batches.
    what = "one device's rows of a micro-batch" if inside else "the batch"
    together = rows if inside else all_rows
    note = f"does not divide {what}: {together} rows ({views} views per image)"
    return Size(field, bn_group, False, note, _nearest(bn_group, _divisors(together)))


def _fsdp(fsdp: int, devices: int) -> Size:
    field = "parallel.fsdp"
    if devices % fsdp == 0:
        note = f"parameters and optimizer state are sharded over {fsdp} devices"
        return Size(field, fsdp, True, note)
    note = f"does not divide the {devices} devices of a slice"
    return Size(field, fsdp, False, note, _nearest(fsdp, _divisors(devices)))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _nearest(size: int, sizes: Iterable[int]) -> tuple[int, ...]:
    """Returns the largest of `sizes` below `size` and the smallest above it."""
    ordered = sorted(sizes)
    below = [n for n in ordered if n < size][-1:]
    return (*below, *[n for n in ordered if n > size][:1])
