"""Pictures of pairs for reports and previews."""

import textwrap
from typing import Any

import numpy as np

from ssl_jax.inputs import Arrays

_WIDTH, _LETTERS = 224, 28  # pixels of a captioned picture, letters of a line
_LINES, _LINE = 4, 18  # lines of a caption, and pixels of a line


def image(pixels: np.ndarray) -> np.ndarray:
    """Returns the image of a pair as an RGB picture [h, w, 3]."""
    from ssl_jax.inputs.image.make import picture

    return picture(pixels)


def preview(record: Arrays, seen: Arrays) -> Arrays:
    """Returns the pictures of `Input.preview`: the original has its first caption below it."""
    views = {name: image(np.asarray(value)) for name, value in seen.items() if "views" in name}
    text = np.asarray(record["text"]).tobytes().decode("utf-8").partition("\n")[0]
    return {"original": captioned(image(np.asarray(record["image"])), text), **views}


def captioned(pixels: np.ndarray, caption: str) -> np.ndarray:
    """Returns a picture uint8 [h, 224, 3] of an image uint8 [h, w, 3] with its caption below.

    The long side of the image has 224 pixels, so that the height is limited.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = _WIDTH / max(pixels.shape[:2])
    height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
    resized = Image.fromarray(pixels).resize((width, height))
    lines = textwrap.wrap(caption, _LETTERS, max_lines=_LINES, placeholder=" …")
    canvas: Any = Image.new("RGB", (_WIDTH, height + _LINE * len(lines) + 6), "white")
    canvas.paste(resized, (0, 0))
    font = ImageFont.load_default(15)
    ImageDraw.Draw(canvas).text((4, height + 2), "\n".join(lines), fill="black", font=font)
    return np.asarray(canvas)
