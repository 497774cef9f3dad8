"""Size of a queue of earlier batches."""


def count_slots(field: str, size: int, batch_size: int) -> int:
    """Returns the number of batches that a queue of `size` rows holds.

    Args:
      field: name of the hyperparameter, for the message.
      size: rows of the queue; 0 for no queue.
      batch_size: examples in the global batch.

    Raises:
      ValueError: `size` is not a multiple of the batch size.
    """
    slots, rest = divmod(size, batch_size)
    if rest:
        nearest = [n * batch_size for n in (slots, slots + 1) if n]
        raise ValueError(
            f"{field} {size} is not a multiple of the batch size {batch_size}; nearest valid "
            f"sizes: {', '.join(map(str, nearest))}"
        )
    return slots
