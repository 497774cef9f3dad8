import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ssl_jax.inputs.image.decode import decode

H, W = 32, 64  # quadrants of whole 16 × 16 blocks: JPEG then keeps their edges
CORNERS = [(200, 40, 30), (30, 180, 60), (40, 60, 210), (220, 200, 40)]


@pytest.fixture(scope="module")
def picture():
    """Four flat quadrants of different colours; not square, so that a turn shows."""
    pixels = np.zeros((H, W, 3), np.uint8)
    for i, colour in enumerate(CORNERS):
        y, x = divmod(i, 2)
        pixels[y * H // 2 : (y + 1) * H // 2, x * W // 2 : (x + 1) * W // 2] = colour
    return pixels


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def close(decoded, expected, tolerance):
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    difference = np.abs(decoded.astype(int) - expected.astype(int))
    assert np.median(difference) <= tolerance
    assert difference.mean() <= tolerance + 1


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 4),
        ("GIF", {}, 0),
    ],
)
def test_rgb(picture, kind, options, tolerance):
    close(decode(encode(Image.fromarray(picture), kind, **options)), picture, tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_gray_is_repeated(picture, kind):
    gray = picture[..., 0]
    decoded = decode(encode(Image.fromarray(gray), kind))
    close(decoded, np.repeat(gray[..., None], 3, -1), 3)
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_one_bit():
    bits = np.indices((8, 8)).sum(0) % 2 == 0
    decoded = decode(encode(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat(bits[..., None] * 255, 3, -1))


def test_palette(picture):
    image = Image.fromarray(picture).quantize(4)
    assert image.mode == "P"
    close(decode(encode(image, "PNG")), picture, 2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composited_on_white(picture, mode):
    alpha = np.full((H, W), 255, np.uint8)
    alpha[:, : W // 2] = 0
    alpha[0] = 128
    image = Image.fromarray(np.dstack([picture, alpha]))
    opaque = picture
    if mode == "LA":
        image = image.convert("LA")
        opaque = np.repeat(np.asarray(image)[..., :1], 3, -1)
    if mode == "P":  # one transparent colour, no half tones
        image = Image.fromarray(picture).quantize(4)
        clear = image.getpixel((0, 0))
        data = encode(image, "PNG", transparency=clear)
        expected = picture.copy()
        expected[: H // 2, : W // 2] = 255
        close(decode(data), expected, 2)
        return
    a = alpha[..., None] / 255
    close(decode(encode(image, "PNG")), np.rint(opaque * a + 255 * (1 - a)), 1)


def test_cmyk_of_photoshop_is_not_inverted(picture):
    """Pillow writes CMYK as Adobe does, inverted; libjpeg alone would give the negative."""
    image = Image.fromarray(picture).convert("CMYK")
    close(decode(encode(image, "JPEG", quality=95)), picture, 4)


def test_sixteen_bits():
    values = np.array([[0, 128, 129, 256, 257], [32768, 40000, 65406, 65407, 65535]], np.uint16)
    decoded = decode(encode(Image.fromarray(values), "PNG"))
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], 3, -1))


def test_sixteen_bits_of_three_channels(picture):
    deep = picture.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    close(decode(png(W, H, 16, 2, rows)), picture, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(picture, orientation, kind):
    stored = {  # how a camera held that way stores the upright picture: EXIF 2.32, 4.6.4
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: np.rot90(picture, 2).transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = Image.fromarray(np.ascontiguousarray(stored))
    close(decode(encode(image, kind, exif=exif.tobytes(), **lossless)), picture, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animation_gives_its_first_frame(picture, kind):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    close(decode(data), picture, 1)


def png(width, height, bits, colour, rows=b""):
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "begins with '<!DOCTYPE html>"),
        (bytes(100), "not a JPEG"),
        (b"II*\0" + bytes(50), "not a JPEG"),  # TIFF
        (png(60000, 60000, 8, 2), "refused: .*3600000000 pixels"),
        (png(8, 8, 8, 2, b"\0" * 20), "damaged"),
    ],
)
def test_refusals(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    for fraction in (0.1, 0.5, 0.9):
        with pytest.raises(ValueError, match=r"damaged|not a JPEG"):
            decode(data[: int(len(data) * fraction)])
