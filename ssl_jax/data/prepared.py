"""Opens a dataset that TensorFlow Datasets prepared, as a source with random access."""

import functools
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np

from ssl_jax.data import arrayrecord, feature_classes, identity, tfrecord
from ssl_jax.data.source import Labels, Record, Source, image_record
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault, printable
from ssl_jax.inputs.image import decode

_PROBE_URL = "https://storage.googleapis.com/tfds-data"  # the mirror of TFDS
_PROBE_SECONDS = 3


def open_prepared(
    name: str,
    data_dir: str,
    split: str,
    channels: int = 3,
    max_megapixels: float = decode.MAX_MEGAPIXELS,
) -> Source:
    """Opens the dataset `NAME[/CONFIG][:VERSION]`, prepared as TFRecord or ArrayRecord.

    The dataset needs a feature "image". Every class label among its features becomes a label field.
    A missing dataset is downloaded and prepared, if the network is available and no part must be
    downloaded by hand.

    Args:
      name: name of the dataset, optionally with its config and version.
      data_dir: data_dir of tensorflow-datasets.
      split: a split, a slice or a sum in the notation of TFDS, for example "train[:10000]",
        "train[:10%]" or "train+test".
      channels, max_megapixels: see `decode.decode`.

    Raises:
      Fault: the dataset, the split or a shard is missing (66); a shard is damaged, or the examples
        have no image (65); image files cannot be decoded to `channels` channels (78).
    """
    import tensorflow_datasets as tfds

    decode.check_channels(channels)
    builder = _builder(name, data_dir)
    features, splits = dict(builder.info.features), builder.info.splits
    if not isinstance(features.get("image"), tfds.features.Image):
        raise Fault(
            f"{name} has no feature 'image', only: {', '.join(map(printable, features))}. Choose "
            "an image dataset.",
            BAD_DATA,
        )
    try:
        info = splits[split]
    except ValueError as error:
        available = (
            f"{', '.join(map(printable, splits))}, and slices of them such as 'train[:10000]'"
        )
        message = f"{name} has no split {split!r}; available splits: {available}"
        message += f" ({_first_line(error)})"
        raise Fault(message, MISSING_INPUT) from None
    class_names = {
        field: tuple(feature.names)
        for field, feature in features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    }
    if not info.num_examples:
        raise Fault(f"{name}: the split {split!r} is empty", BAD_DATA)
    read, describe = _reader(builder, info)
    decode_image = functools.partial(
        decode.decode, channels=channels, max_megapixels=max_megapixels
    )
    load, read_labels = _loaders(read, list(class_names), decode_image)
    return Source(
        name=f"tfds:{name}",
        size=info.num_examples,
        record=image_record(channels),
        load=load,
        describe=describe,
        read_labels=read_labels,
        class_names=class_names,
        identity=functools.cache(lambda: _identity(info.file_instructions)),
    )


def _identity(parts: list[Any]) -> str:
    """Returns the hash of the shards, and of the records that the split takes from each."""
    shards = [os.fspath(part.filename) for part in parts]
    records = [f"{part.examples_in_shard} {part.skip} {part.take}" for part in parts]
    return identity.of_files(shards, os.path.dirname(shards[0]), records)


def _loaders(
    read: Callable[[int], bytes], fields: list[str], decode_image: Callable[[bytes], np.ndarray]
) -> tuple[Callable[[int], tuple[Record, Labels]], Callable[[int], Labels]]:
    """Returns `Source.load` and `Source.read_labels`.

    TFDS stores each feature under its name in a tf.train.Example. Reading the example directly
    takes 10 % of the time of `features.deserialize_example_np`.
    """
    import tensorflow as tf

    parse = tf.train.Example.FromString

    def labels_from(values: Any) -> Labels:
        numbers = {field: values[field].int64_list.value for field in fields}
        return {field: value[0] if value else -1 for field, value in numbers.items()}

    def load(index: int) -> tuple[Record, Labels]:
        values = parse(read(index)).features.feature
        image = decode_image(values["image"].bytes_list.value[0])
        return {"image": image}, labels_from(values)

    return load, lambda index: labels_from(parse(read(index)).features.feature)


def _reader(builder: Any, split: Any) -> tuple[Callable[[int], bytes], Callable[[int], str]]:
    """Returns `index -> serialised example` and `index -> shard and record`."""
    parts = split.file_instructions  # slices of shards; [] for a split without examples
    paths = [part.filename for part in parts]
    lengths = [part.examples_in_shard for part in parts]
    starts = np.cumsum([0, *lengths[:-1]])
    slices = zip(starts, parts, strict=True)
    rows = np.concatenate([start + part.skip + np.arange(part.take) for start, part in slices])
    kind = builder.info.file_format.value
    records: tfrecord.Records | arrayrecord.Records
    if kind == "tfrecord":
        if "://" in str(builder.data_path):
            raise Fault(
                f"{printable(str(builder.data_path))}: random access to TFRecord needs local "
                "files. Copy the dataset to a local disk, or prepare it as array_record.",
                BAD_DATA,
            )
        records = tfrecord.Records(paths, lengths)
    elif kind == "array_record":
        records = arrayrecord.Records(paths, lengths)
    else:
        raise Fault(
            f"{printable(str(builder.data_path))} is stored as {kind}; prepare it as array_record",
            BAD_DATA,
        )
    return lambda i: records.read(int(rows[i])), lambda i: records.describe(int(rows[i]))


def _builder(name: str, data_dir: str) -> Any:
    """Returns a TFDS builder whose files exist; prepares the dataset if it is missing."""
    import tensorflow_datasets as tfds

    _check_name(name)
    reader = tfds.core.read_only_builder
    try:
        # `builder_from_files` would read the features before they can be checked.
        with tfds.core.utils.error_utils.record_error_context():
            directory = reader._find_builder_dir(name, data_dir=data_dir)
        if directory:
            feature_classes.check(directory)
            return reader.builder_from_directory(directory)
    except Fault:
        raise
    except Exception as error:  # damaged JSON raises many exception types
        raise Fault(
            f"cannot read the dataset {name!r} in {printable(os.path.abspath(data_dir))}: "
            f"{_first_line(error)}. Copy its files again or prepare the dataset again",
            BAD_DATA,
        ) from error
    folder = printable(os.path.abspath(data_dir))
    missing = f"dataset {name!r} is not in {folder}"
    command = f"tfds build {name} --data_dir={folder}"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        message = f"{missing}, and TFDS cannot make it: {_first_line(error)}"
        raise Fault(message, MISSING_INPUT) from None
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise Fault(
            f"{missing}, and parts of it must be downloaded by hand to {folder}/downloads/manual: "
            f"{manual} Then prepare it with: {command}",
            MISSING_INPUT,
        )
    if not _online():
        raise Fault(
            f"{missing}, and there is no network. Prepare it on a machine with network access: "
            f"{command}",
            MISSING_INPUT,
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise Fault(
            f"{missing}, and preparing it failed: {error}. Try to prepare it with: {command}",
            MISSING_INPUT,
        ) from error
    return builder


def _check_name(name: str) -> None:
    """Raises Fault unless the name is NAME[/CONFIG][:VERSION].

    With a namespace, as in "huggingface:mnist", TFDS reads from the network, without asking.
    """
    import tensorflow_datasets as tfds

    try:
        dataset, options = tfds.core.naming.parse_builder_name_kwargs(name)
        valid = not dataset.namespace and options.keys() <= {"config", "version"}
    except ValueError:
        valid = False
    if not valid:
        form = "NAME[/CONFIG][:VERSION], without a namespace or arguments"
        raise Fault(f"{name!r} is not the name of a dataset ({form})", BAD_CONFIG)


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().split("\n")[0]) or type(error).__name__


def _online() -> bool:
    """Returns True if the network answers within seconds; TFDS would retry for minutes."""
    answers = []

    def probe() -> None:
        try:
            urllib.request.urlopen(_PROBE_URL, timeout=_PROBE_SECONDS).close()
            answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except Exception:  # TFDS would fail for the same reason
            pass

    # A thread, because the timeout of `urlopen` does not cover the DNS lookup.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS + 1)
    return bool(answers)
