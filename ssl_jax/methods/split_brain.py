"""Split-brain autoencoder: two networks predict each other's channels (arXiv 1611.09842)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.methods import Batch, Method, Picture, Run, Tree
from ssl_jax.methods._targets import BinTarget, ValueTarget
from ssl_jax.methods._views import check_views
from ssl_jax.models.chain import Chain
from ssl_jax.models.lab import from_seen, seen_channels, standardised_channels, to_lab, to_rgb
from ssl_jax.models.lab_bins import colour_bins, lightness_bins
from ssl_jax.models.map_head import MapHead, interpolate
from ssl_jax.models.split import SplitResNet, check_split
from ssl_jax.models.standard import unstandardise

LOSSES = ("classification", "regression")
BINS = {(0,): lightness_bins, (1, 2): colour_bins}  # of groups of Lab's channels
GROUP_NAMES = {(0,): "predicted lightness", (1, 2): "predicted colours"}
TEMPERATURE = 0.38  # at which predicted bins become values in pictures, as in arXiv 1603.08511
LAB_CAPTION = (
    "Evaluation images. In the other columns, one half of the encoder has replaced the channels "
    "that it does not see, which the title names, by its prediction."
)
GROUPS_CAPTION = (
    "Both groups of channels of evaluation images, each followed by the prediction from the other "
    "group. A group of three channels is shown as RGB, any other group as its mean."
)


def make(
    encoder: SplitResNet,
    run: Run,
    *,
    loss: str = "classification",
    stride: int = 4,
    hidden_dim: int = 256,
) -> Method:
    """Split-brain autoencoder: each half of the encoder predicts the channels of the other half.

    The features are those of both halves, which together see the whole image. Each half has its own
    head, which predicts every `stride`th row and column. The loss is the sum of both halves'
    losses, so neither half learns from the other one's loss.

    Args:
      encoder: a `split.SplitResNet`, which defines the groups of channels.
      run: one view.
      loss: "classification" predicts bins of Lab by cross-entropy, 313 of the colour and 100 of the
        lightness. It needs the lightness in one group and both colours in the other. "regression"
        predicts the channels as the encoder sees them, with half of the squared error. It works
        with any two groups.
      stride: distance of the predicted pixels in the image, in rows and columns.
      hidden_dim: channels of the hidden layers of both heads.

    Raises:
      ValueError: if the run does not have one view, the encoder has no halves, the groups do not
        divide the channels, there are no bins for the groups, or a number is out of its range.
    """
    check_views(run, 1)
    size = run.seen["views"].shape[2]
    if not isinstance(encoder, SplitResNet):
        raise ValueError(
            "a split-brain autoencoder needs an encoder of two halves, such as "
            f"model.name split_resnet18; got a {type(encoder).__name__}"
        )
    is_lab, groups = encoder.colors == "lab", (encoder.first, encoder.second)
    seen = jax.eval_shape(lambda x: seen_channels(x, encoder.colors), run.seen["views"])
    check_split(*groups, seen.shape[-1])
    if loss not in LOSSES or not 1 <= stride <= size or hidden_dim < 1:
        raise ValueError(
            f"loss must be one of {', '.join(LOSSES)}, stride from 1 to {size}, the side of the "
            f"images, and hidden_dim at least 1; got {loss!r}, {stride} and {hidden_dim}"
        )
    targets: list[Any] = [ValueTarget(len(group)) for group in reversed(groups)]
    if loss == "classification":
        if not is_lab or any(group not in BINS for group in groups):
            raise ValueError(
                "classification has bins for the groups (0,) and (1, 2) of model.colors 'lab'; got "
                f"{groups[0]} and {groups[1]} of {encoder.colors!r}. Set method.loss to "
                "'regression'"
            )
        targets = [BinTarget(BINS[group](), TEMPERATURE) for group in reversed(groups)]
    pooled = Chain(run.bn_group, 1, encoder=encoder)
    halves = Chain(run.bn_group, 1, encoder=encoder.clone(pool="none"))
    names = ("first_head", "second_head")
    heads = []
    for name, target in zip(names, targets, strict=True):
        shape = (-(-size // stride), target.outputs, hidden_dim)
        head = MapHead(*shape, stride, encoder.grid, dtype=encoder.dtype)
        heads.append(Chain(run.bn_group, 1, **{name: head}))

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key, 3)
        params, stats = halves.init(keys[0], batch["views"])
        # Two examples are no normalisation group, so the maps come from inference.
        maps = halves.features(params, stats, batch["views"][:, 0])
        for head, part, head_key in zip(heads, _halves(maps), keys[1:], strict=True):
            head_params, head_stats = head.init(head_key, part[:, None])
            params, stats = params | head_params, stats | head_stats
        return params, {"batch_stats": stats}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del key
        stats = extra["batch_stats"]
        maps, new = halves(params, stats, batch["views"])
        truth = channels_of(batch["views"][:, 0])[:, ::stride, ::stride]
        outputs = {"features": maps["encoder"].mean((2, 3))}
        for i, part in enumerate(_halves(maps["encoder"])):
            predicted, head_stats = heads[i](params, stats, part)
            compared = targets[i].compare(
                predicted[names[i]][:, 0], truth[..., np.array(groups[1 - i])]
            )
            outputs |= {f"{name}{i}": x for name, x in compared.items()}
            new |= head_stats
        return outputs, new

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        both = [
            target.metrics({n[:-1]: x for n, x in outputs.items() if n[-1] == str(i)})
            for i, target in enumerate(targets)
        ]
        metrics = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
        return outputs["error0"].mean() + outputs["error1"].mean(), (extra, metrics)

    def features(params: Tree, extra: Tree, images: jax.Array) -> jax.Array:
        return pooled.features(params, extra["batch_stats"], images)

    def channels_of(images: jax.Array) -> jax.Array:
        """Returns all channels in the unit of the targets, [n, h, w, c]."""
        if loss == "classification":
            return to_lab(images)
        return standardised_channels(images, encoder.colors, encoder.mean, encoder.std)

    def images_of(channels: jax.Array) -> jax.Array:
        """Inverts `channels_of`."""
        if loss == "classification":
            return to_rgb(channels)
        if is_lab:
            return to_rgb(from_seen(channels))
        return unstandardise(channels, encoder.mean, encoder.std)

    def predictions(params: Tree, extra: Tree, images: jax.Array) -> list[jax.Array]:
        """Returns the second and the first group of channels, predicted at every pixel."""
        maps = halves.features(params, extra["batch_stats"], images)
        predicted = []
        for i, part in enumerate(_halves(maps)):
            x = heads[i].features(params, extra["batch_stats"], part, upto=names[i])
            predicted.append(interpolate(targets[i].decode(x), np.arange(size) / stride))
        return predicted

    def draw(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        """Draws each image and its predictions in the columns of the picture."""
        del key
        second, first = predictions(params, extra, images)
        truth = [channels_of(images)[..., np.array(group)] for group in groups]
        order = np.argsort(groups[0] + groups[1])

        def merge(*parts: jax.Array) -> jax.Array:
            return images_of(jnp.concatenate(parts, axis=-1)[..., order])

        if is_lab:
            columns = [images, merge(truth[0], second), merge(first, truth[1])]
        else:
            sides = images, merge(first, second)
            columns = [_shown(x[..., np.array(group)]) for group in groups for x in sides]
        return jnp.stack(columns, axis=1).clip(0, 1)

    picture = Picture(
        "predictions",
        "Predicted channels",
        LAB_CAPTION if is_lab else GROUPS_CAPTION,
        draw,
        ("original", *(GROUP_NAMES.get(group, "prediction") for group in reversed(groups)))
        if is_lab
        else ("first group", "predicted", "second group", "predicted"),
    )
    return Method(init, encode, objective, features, pictures=(picture,))


def _halves(maps: jax.Array) -> list[jax.Array]:
    """Divides features [..., f] into those of the two halves of the encoder."""
    return jnp.split(maps, 2, axis=-1)


def _shown(group: jax.Array) -> jax.Array:
    """Shows a group of channels as RGB image: three channels as they are, others as their mean."""
    if group.shape[-1] == 3:
        return group
    return jnp.repeat(group.mean(-1, keepdims=True), 3, axis=-1)
