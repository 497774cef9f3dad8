"""Bytes of an image file to upright RGB pixels, by Pillow."""

import functools
import io
import types
from typing import Any

import numpy as np

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@functools.cache
def _pillow() -> types.ModuleType:
    from PIL import Image, WebPImagePlugin  # Pillow itself loads WebP only after all else failed

    del WebPImagePlugin
    return Image


def decode(data: bytes) -> np.ndarray:
    """Decodes an image to upright RGB.

    JPEG, PNG, WebP, BMP or GIF, whatever the file is called; of an animation the first frame.
    Grey is repeated; transparency is composited on white; CMYK is converted by Pillow, without a
    colour profile; 16-bit grey v becomes round(v / 257); an EXIF orientation is applied.

    Args:
      data: the whole file.

    Returns:
      uint8 [h, w, 3].

    Raises:
      ValueError: with the reason; empty, not an image, truncated, or more than 179 megapixels
        by its header (refused before any pixel is decoded).
    """
    image_module = _pillow()
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    try:
        with image_module.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return np.asarray(_upright(_rgb(image), image))
    except image_module.UnidentifiedImageError:
        start = data[:16].decode("latin-1")
        raise ValueError(f"not a {', '.join(FORMATS)} image; it begins with {start!r}") from None
    except image_module.DecompressionBombError as error:
        raise ValueError(f"refused: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise a dozen types on damaged files
        raise ValueError(f"damaged: {error}") from error


def _rgb(image: Any) -> Any:
    """Any mode to "RGB"."""
    image_module = _pillow()
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.int64)
        grey = (values.clip(0, 65535) + 128) // 257
        return image_module.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = image_module.new("RGBA", image.size, "white")
        return image_module.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(rgb: Any, image: Any) -> Any:
    """Applies the EXIF orientation of `image` to its pixels `rgb`."""
    orientation = image.getexif().get(_ORIENTATION)
    if orientation not in _UPRIGHT:
        return rgb
    return rgb.transpose(getattr(_pillow().Transpose, _UPRIGHT[orientation]))
