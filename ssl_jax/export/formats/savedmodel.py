"""Exports to TensorFlow's SavedModel, for any batch size on CPUs, GPUs and TPUs."""

import pathlib
import warnings
from typing import Any

import numpy as np

from ssl_jax.export import check
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import (
    Subject,
    at_full_precision_without_paths,
    name_outputs,
    require_classifier,
    variables_tree,
)

FILE = "saved_model"
INPUT = Input("NHWC")
PLATFORMS = ("cpu", "cuda", "tpu")


def check_supported(subject: Subject) -> None:
    """Raises Fault if --head is set and there is no classifier."""
    require_classifier(subject, "savedmodel")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes the folder saved_model/.

    The signature "serving_default" maps "images" to "features" and, with a classifier, "logits".
    """
    import jax
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    side, channels = subject.size, subject.backbone.channels

    def program(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        return dict(zip(("features", "logits"), subject.forward(variables, images), strict=False))

    with warnings.catch_warnings():
        # JAX plans to move jax2tf to TensorFlow, which does not concern users of this command.
        warnings.simplefilter("ignore", DeprecationWarning)
        from jax.experimental import jax2tf

        converted = jax2tf.convert(
            program,
            polymorphic_shapes=[None, f"(n, {side}, {side}, {channels})"],
            with_gradient=False,
            native_serialization_platforms=PLATFORMS,
        )
    module: Any = tf.Module()
    module.variables_ = tf.nest.map_structure(
        lambda array: tf.Variable(array, trainable=False), variables_tree(subject.weights)
    )
    spec = tf.TensorSpec([None, side, side, channels], tf.float32, name="images")
    call = tf.function(lambda images: converted(module.variables_, images), [spec], autograph=False)
    module.__call__ = call
    with at_full_precision_without_paths():
        signature = call.get_concrete_function()
        tf.saved_model.save(module, str(folder / FILE), {"serving_default": signature})


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the outputs for check.images, computed by TensorFlow."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder / FILE))
    images = tf.constant(check.images(subject))
    outputs = model.signatures["serving_default"](images=images)
    names = ("features", "logits") if subject.has_logits else ("features",)
    return {"tensorflow": name_outputs([outputs[name] for name in names])}


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    side, file = subject.size, str(folder / FILE)
    lines = [
        "import tensorflow as tf",
        f"model = tf.saved_model.load({file!r})",
        f"# images: float32 [n, {side}, {side}, {subject.backbone.channels}] in [0, 1]",
        "outputs = model.signatures['serving_default'](images=tf.constant(images))",
        "features = outputs['features']",
    ]
    return "\n".join([*lines, "logits = outputs['logits']"][: 5 + subject.has_logits])
