"""Makes the `Input` of images from the config's sections."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs import Arrays, Input
from ssl_jax.inputs.image import host
from ssl_jax.inputs.image.fields import GEOMETRY
from ssl_jax.inputs.image.views import Decisions, View, groups, views_from_fields

NEED_RGB = ("saturation", "hue")  # jitter operations that work on RGB images only


def make_input(
    *,
    augment: Mapping[str, Any],
    data: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    seed: int,
) -> Input:
    """Makes the input of images.

    Args:
      augment: fields of `config.augment`: the views and the placement of the colour operations.
      data: fields of `config.data`; only `channels` is read, 3 by default.
      evaluation: fields of `config.eval`; only `crop` is read.
      seed: seed of the random decisions.

    Raises:
      Fault: views of a third size, an unknown placement, or operations that need RGB images if
        `channels` is not 3.
    """
    views = views_from_fields(augment)
    return input_from_views(
        views,
        placement=augment["placement"],
        channels=data.get("channels", 3),
        size=views[0].size,
        crop=evaluation["crop"],
        seed=seed,
    )


def input_from_views(
    views: Sequence[View],
    *,
    seed: int,
    placement: str = "host",
    channels: int = 3,
    size: int = 0,
    crop: float = 1.0,
) -> Input:
    """Makes the input of images with these random views.

    Args:
      views: full-size views of one size, then local views of one other size, if any.
      seed: seed of the random decisions.
      placement: "host" or "device", where the colour operations run.
      channels: number of channels of the images.
      size: side of the evaluation view in pixels; 0 takes the size of the first view.
      crop: fraction of the image's short side that the evaluation view shows.

    Raises:
      Fault: as `make_input`.
    """
    # Imported here because configs are checked before JAX is imported, which takes seconds.
    import jax
    import jax.numpy as jnp

    check_channels(views, channels)
    size = size or views[0].size
    parts = groups(views)
    augmented = host.make(views, seed=seed, placement=placement)
    on_device = placement == "device"
    shipped, seen = {}, {}
    for prefix, group in parts:
        shape = (len(group), group[0].size, group[0].size, channels)
        dtype = jnp.uint8 if on_device else jnp.float32
        shipped[f"{prefix}views"] = jax.ShapeDtypeStruct(shape, dtype)
        seen[f"{prefix}views"] = jax.ShapeDtypeStruct(shape, jnp.float32)
        if on_device:
            decisions = (len(group), len(Decisions._fields))
            shipped[f"{prefix}decisions"] = jax.ShapeDtypeStruct(decisions, jnp.float32)

    def colour(batch: Arrays) -> Arrays:
        from ssl_jax.inputs.image import device

        batch = dict(batch)
        for prefix, group in parts:
            crops, decisions = batch[f"{prefix}views"], batch.pop(f"{prefix}decisions")
            batch[f"{prefix}views"] = device.apply(crops, decisions, group)
        return batch

    def with_views(*others: View) -> Input:
        # Evaluation makes its views on the host, so that it compiles no colour operations.
        return input_from_views(
            others, placement="host", channels=channels, size=size, crop=crop, seed=seed
        )

    full = parts[0][1]
    plain = View(**{field: getattr(views[0], field) for field in GEOMETRY})
    plain = plain._replace(jitter=0.0, grayscale=0.0, blur=0.0)
    return Input(
        record={"image": (np.uint8, (None, None, channels))},
        host=lambda record, epoch, index: augmented(record["image"], epoch, index),
        device=colour if on_device else lambda batch: batch,
        shipped=shipped,
        seen=seen,
        evaluate=lambda record: host.center_view(record["image"], size=size, crop=crop),
        evaluated=jax.ShapeDtypeStruct((size, size, channels), jnp.uint8),
        to_model=lambda images: images.astype(jnp.float32) / 255,
        picture=picture,
        preview=_preview,
        pair=lambda: with_views(full[0], full[:2][-1]),
        light=lambda: with_views(plain)._replace(
            description=f"random crops of {plain.crop_area[0]:g} to {plain.crop_area[1]:g} of the "
            f"area, mirrored with probability {plain.flip:g}"
        ),
        noun="image",
        raw_name="raw pixels",
        description=f"{size} px, central {crop:g} of the short side",
    )


def check_channels(views: Sequence[View], channels: int) -> None:
    """Raises Fault if a view needs RGB images and `channels` is not 3."""
    if channels == 3:
        return
    for number, view in enumerate(views):
        used = [name for name in NEED_RGB if view.jitter and getattr(view, name)]
        used += ["grayscale"] * bool(view.grayscale)
        if used:
            remedy = "Switch them off: " + " ".join(f"--config.augment.{name}=0" for name in used)
            if number:
                section = "second" if view.size == views[0].size else "local"
                remedy = f"Set them to 0 in augment.{section}"
            raise Fault(
                f"data.channels={channels}: {', '.join(used)} need RGB images (3 channels). "
                f"{remedy}",
                BAD_CONFIG,
            )


def picture(image: np.ndarray) -> np.ndarray:
    """Returns an RGB picture [h, w, 3] of an image [h, w, c].

    One or two channels: the first is repeated. More: the first three are shown.
    """
    channels = image.shape[-1]
    if channels < 3:
        return np.repeat(image[..., :1], 3, axis=-1)
    return image[..., :3]


def _preview(record: Arrays, seen: Arrays) -> Arrays:
    views = {name: picture(np.asarray(value)) for name, value in seen.items() if "views" in name}
    return {"original": picture(np.asarray(record["image"])), **views}
