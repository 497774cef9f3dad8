"""Decodes image files to upright pixels with Pillow."""

import contextlib
import functools
import io
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs.image import png_rows

MODES = (1, 3, 4)  # channels that image files can have
MAX_MEGAPIXELS = 179.0  # default of data.max_megapixels; Pillow refuses the same size
_IN_FLIGHT = 200_000_000  # pixels that all threads together decode at the same time
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
    # Pillow tries WebP only after all other formats failed, unless its plugin is imported.
    from PIL import Image, WebPImagePlugin

    del WebPImagePlugin
    # `decode` has limits of its own. Pillow's warnings about odd metadata name no file.
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


class _Budget:
    """Limits the pixels that all threads decode at the same time.

    A larger image waits until no other image is being decoded.
    """

    def __init__(self, pixels: int):
        self._limit, self._used = pixels, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until `pixels` fit into the limit, and counts them within the context."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + pixels <= self._limit)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


_budget = _Budget(_IN_FLIGHT)


def check_channels(channels: int) -> None:
    """Raises Fault if `decode` cannot make images of `channels` channels."""
    if channels not in MODES:
        modes = "image files are decoded to 1 (grey), 3 (RGB) or 4 (RGBA) channels"
        raise Fault(f"data.channels={channels}: {modes}", BAD_CONFIG)


def decode(data: bytes, channels: int = 3, *, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decodes an image to upright grey, RGB or RGBA pixels.

    Reads JPEG, PNG, WebP, BMP and GIF; the content decides, not the file name. Of an animation, the
    first frame is read. Grey is repeated for RGB. Transparency is composited on white for 1 and 3
    channels and kept for 4. Pillow converts CMYK without a colour profile. A 16-bit grey value v
    becomes round(v / 257). The EXIF orientation is applied.

    A file that ends before its last pixel is damaged. Bytes that are missing after the last pixel
    do no harm. A JPEG file that was cut and then closed by an end marker looks complete: libjpeg
    fills its missing rows with grey.

    All threads together decode at most 200 megapixels at the same time, or one larger image. This
    takes up to 4 GB of memory.

    Args:
      data: the whole file.
      channels: 1 for grey (ITU-R 601 luma of RGB), 3 for RGB, 4 for RGBA.
      max_megapixels: largest size that the header may claim, in millions of pixels.

    Returns:
      uint8 [h, w, channels].

    Raises:
      ValueError: the data are empty, not an image, truncated or damaged, or the image is larger
        than `max_megapixels`; the message gives the reason. A larger image is refused before any
        pixel is decoded.
    """
    image_module = _pillow()
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    try:
        with image_module.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels <= max_megapixels * 1e6:
                with _budget.take(pixels):
                    return _pixels(data, image, channels)
    except image_module.UnidentifiedImageError:
        start = data[:16].decode("latin-1")
        raise ValueError(f"not a {', '.join(FORMATS)} image: it starts with {start!r}") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise many exception types for damaged files
        raise ValueError(f"damaged: {error}") from error
    raise ValueError(
        f"refused: {pixels:,} pixels are more than data.max_megapixels={max_megapixels:g}; raise "
        "it if the image is what it claims to be"
    )


def _pixels(data: bytes, image: Any, channels: int) -> np.ndarray:
    """Decodes an opened image; see `decode`."""
    image.load()
    if image.format == "PNG":
        png_rows.check(data, image)
    pixels = _rgba(image) if channels == 4 else _rgb(image)
    if channels == 1:
        pixels = pixels.convert("L")
    upright = np.asarray(_upright(pixels, image))
    return upright.reshape(*upright.shape[:2], channels)


def _rgb(image: Any) -> Any:
    """Converts an image of any mode to "RGB"."""
    image_module = _pillow()
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's conversion would clip at 255
        values = np.asarray(image).astype(np.int32)
        grey = (values.clip(0, 65535) + 128) // 257
        return image_module.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = image_module.new("RGBA", image.size, "white")
        return image_module.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _rgba(image: Any) -> Any:
    """Converts an image of any mode to "RGBA"; it is opaque if the image has no transparency."""
    return (image if image.has_transparency_data else _rgb(image)).convert("RGBA")


def _upright(pixels: Any, image: Any) -> Any:
    """Applies the EXIF orientation of `image` to its converted pixels."""
    orientation = image.getexif().get(_ORIENTATION)
    if orientation not in _UPRIGHT:
        return pixels
    return pixels.transpose(getattr(_pillow().Transpose, _UPRIGHT[orientation]))
