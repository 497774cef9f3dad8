"""Decoded pixels of files of several formats and modes, and refusals of damaged files."""

import concurrent.futures
import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs.image import decode as decode_module
from ssl_jax.inputs.image.decode import check_channels, decode

H, W = 32, 64  # quadrants consist of whole 16 × 16 blocks, so that JPEG keeps their edges
CORNERS = [(200, 40, 30), (30, 180, 60), (40, 60, 210), (220, 200, 40)]


@pytest.fixture(scope="module")
def picture():
    """Four flat quadrants of different colours; not square, so that rotations change the shape."""
    pixels = np.zeros((H, W, 3), np.uint8)
    for i, colour in enumerate(CORNERS):
        y, x = divmod(i, 2)
        pixels[y * H // 2 : (y + 1) * H // 2, x * W // 2 : (x + 1) * W // 2] = colour
    return pixels


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_close(decoded, expected, tolerance):
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
def test_rgb_of_every_format_is_decoded(picture, kind, options, tolerance):
    assert_close(decode(encode(Image.fromarray(picture), kind, **options)), picture, tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_is_repeated_for_rgb(picture, kind):
    gray = picture[..., 0]
    decoded = decode(encode(Image.fromarray(gray), kind))
    assert_close(decoded, np.repeat(gray[..., None], 3, -1), 3)
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_one_bit_becomes_black_and_white():
    bits = np.indices((8, 8)).sum(0) % 2 == 0
    decoded = decode(encode(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat(bits[..., None] * 255, 3, -1))


def test_palette_is_applied(picture):
    image = Image.fromarray(picture).quantize(4)
    assert image.mode == "P"
    assert_close(decode(encode(image, "PNG")), picture, 2)


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
    if mode == "P":  # one transparent colour, no partial transparency
        image = Image.fromarray(picture).quantize(4)
        clear = image.getpixel((0, 0))
        data = encode(image, "PNG", transparency=clear)
        expected = picture.copy()
        expected[: H // 2, : W // 2] = 255
        assert_close(decode(data), expected, 2)
        return
    a = alpha[..., None] / 255
    assert_close(decode(encode(image, "PNG")), np.rint(opaque * a + 255 * (1 - a)), 1)


def test_cmyk_is_not_inverted(picture):
    """Adobe and Pillow write inverted CMYK; libjpeg alone would give the negative."""
    image = Image.fromarray(picture).convert("CMYK")
    assert_close(decode(encode(image, "JPEG", quality=95)), picture, 4)


def test_sixteen_bit_grey_is_divided_by_257():
    values = np.array([[0, 128, 129, 256, 257], [32768, 40000, 65406, 65407, 65535]], np.uint16)
    decoded = decode(encode(Image.fromarray(values), "PNG"))
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], 3, -1))


def test_sixteen_bit_rgb_is_divided_by_257(picture):
    deep = picture.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    assert_close(decode(png(W, H, 16, 2, rows)), picture, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(picture, orientation, kind):
    image = Image.fromarray(stored_with_orientation(picture, orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    assert_close(decode(encode(image, kind, exif=exif.tobytes(), **lossless)), picture, 3)


def stored_with_orientation(picture, orientation):
    """Returns the pixels that a file with this EXIF orientation holds for the upright picture."""
    stored = {  # pixels stored by a camera in this orientation: EXIF 2.32, section 4.6.4
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: np.rot90(picture, 2).transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animation_gives_its_first_frame(picture, kind):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert_close(decode(data), picture, 1)


def png(width, height, bits, colour, rows=b"", interlaced=0):
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "starts with '<!DOCTYPE html>"),
        (bytes(100), "not a JPEG"),
        (b"II*\0" + bytes(50), "not a JPEG"),  # TIFF
        (png(60000, 60000, 8, 2), r"refused: 3,600,000,000 pixels .* data\.max_megapixels=179;"),
        (png(8, 8, 8, 2, b"\0" * 20), "damaged"),
    ],
)
def test_files_that_are_no_images_are_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_files_are_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    for fraction in (0.1, 0.5, 0.9):
        with pytest.raises(ValueError, match=r"damaged|not a JPEG"):
            decode(data[: int(len(data) * fraction)])


def scanlines(picture, bits, colour):
    """Returns the rows of a PNG file, unfiltered. A palette index or a grey value is one byte."""
    pixels = picture if colour == 2 else picture[..., 0]
    if bits == 16:
        pixels = pixels.astype(">u2") * 257
    rows = pixels.reshape(len(pixels), -1)
    if bits == 1:
        rows = np.packbits(rows > 100, axis=1)
    return [b"\0" + row.tobytes() for row in rows]


@pytest.mark.parametrize(("bits", "colour"), [(8, 2), (16, 2), (8, 0), (1, 0), (16, 0)])
@pytest.mark.parametrize("missing", [1, 20])
def test_png_that_lacks_rows_is_damaged(picture, bits, colour, missing):
    """The compressed stream ends properly, as some cameras and downloads leave it."""
    rows = scanlines(picture, bits, colour)
    size = sum(map(len, rows))
    kept = b"".join(rows[:-missing])
    assert decode(png(W, H, bits, colour, b"".join(rows))).shape == (H, W, 3)
    with pytest.raises(ValueError, match=f"damaged: only {len(kept):,} of {size:,} bytes"):
        decode(png(W, H, bits, colour, kept))


def test_black_rows_at_the_bottom_are_not_missing(picture):
    black = picture.copy()
    black[H // 2 :] = 0
    np.testing.assert_array_equal(decode(encode(Image.fromarray(black), "PNG")), black)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(black[:1] * 0), "PNG")), 0)


@pytest.mark.parametrize(("height", "width"), [(H, W), (1, 1), (3, 5), (9, 2)])
def test_interlaced_png_needs_all_passes(height, width):
    """The seven passes of Adam7 take every pixel once."""
    values = np.random.default_rng(0).integers(1, 256, (height, width), np.uint8)
    columns = [(0, 8), (4, 8), (0, 4), (2, 4), (0, 2), (1, 2), (0, 1)]
    lines = [(0, 8), (0, 8), (4, 8), (0, 4), (2, 4), (0, 2), (1, 2)]
    passes = [values[y::dy, x::dx] for (x, dx), (y, dy) in zip(columns, lines, strict=True)]
    rows = [b"\0" + row.tobytes() for part in passes if part.size for row in part]
    data = png(width, height, 8, 0, b"".join(rows), interlaced=1)
    np.testing.assert_array_equal(decode(data, channels=1)[..., 0], values)
    with pytest.raises(ValueError, match="damaged"):
        decode(png(width, height, 8, 0, b"".join(rows[:-1]), interlaced=1))


def test_largest_image_is_a_choice():
    data = encode(Image.new("L", (1000, 500)), "PNG")
    assert decode(data, max_megapixels=0.5).shape == (500, 1000, 3)
    with pytest.raises(ValueError, match=r"refused: 500,000 .*data\.max_megapixels=0\.4999"):
        decode(data, max_megapixels=0.4999)


def test_images_of_more_pixels_than_pillow_warns_of_are_silent(recwarn):
    with pytest.raises(ValueError, match="damaged"):
        decode(png(10_000, 9_000, 8, 0), channels=1)
    assert not recwarn.list


def test_all_threads_together_decode_a_limited_number_of_pixels():
    """Images of 4 pixels fill a limit of 10 by two; one of 16 pixels is decoded alone."""
    budget = decode_module._Budget(10)
    lock, now, peaks = threading.Lock(), [], []

    def use(pixels):
        with budget.take(pixels):
            with lock:
                now.append(pixels)
                peaks.append(sorted(now))
            time.sleep(0.002)
            with lock:
                now.remove(pixels)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [4, 4, 4, 16, 4, 4, 16, 4] * 3))
    assert max(map(sum, peaks)) == 16
    assert [4, 4] in peaks
    assert all(len(peak) == 1 or sum(peak) <= 10 for peak in peaks)


# Other numbers of channels.


def luma(rgb):
    """Grey of ITU-R BT.601, in float64."""
    return (rgb.astype(np.float64) @ [0.299, 0.587, 0.114])[..., None]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_one_channel_is_the_luma_of_rgb(noise, kind):
    grey = decode(encode(Image.fromarray(noise), kind), channels=1)
    assert grey.shape == (40, 50, 1)
    assert grey.dtype == np.uint8
    assert np.abs(grey - luma(noise)).max() <= 0.51  # rounded to a whole number


def test_one_channel_of_a_grey_file_is_unchanged(noise):
    grey = noise[..., 0]
    decoded = decode(encode(Image.fromarray(grey), "PNG"), channels=1)
    np.testing.assert_array_equal(decoded, grey[..., None])


def test_one_channel_of_transparent_pixels_is_composited_on_white(noise):
    alpha = np.where(np.arange(50) < 20, 0, 255) * np.ones((40, 1), int)
    image = Image.fromarray(np.dstack([noise, alpha.astype(np.uint8)]))
    decoded = decode(encode(image, "PNG"), channels=1)
    assert (decoded[:, :20] == 255).all()
    assert np.abs(decoded[:, 20:] - luma(noise[:, 20:])).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 4])
def test_sixteen_bit_grey_has_equal_values_in_all_channels(channels):
    values = np.array([[0, 128, 129, 256, 257], [32768, 40000, 65406, 65407, 65535]], np.uint16)
    decoded = decode(encode(Image.fromarray(values), "PNG"), channels)
    expected = np.rint(values / 257).astype(np.uint8)[..., None]
    if channels == 4:
        expected = np.concatenate([expected] * 3 + [np.full_like(expected, 255)], -1)
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_four_channels_keep_colours_and_transparency(noise, kind):
    alpha = np.random.default_rng(1).integers(1, 256, noise.shape[:2], np.uint8)
    rgba = np.dstack([noise, alpha])
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encode(Image.fromarray(rgba), kind, **options), channels=4)
    np.testing.assert_array_equal(decoded, rgba)


def test_four_channels_of_grey_with_transparency(noise):
    grey_alpha = np.ascontiguousarray(noise[..., :2])
    decoded = decode(encode(Image.fromarray(grey_alpha, "LA"), "PNG"), channels=4)
    np.testing.assert_array_equal(decoded, noise[..., [0, 0, 0, 1]])


def test_four_channels_of_a_palette_keep_its_transparent_colour(picture):
    image = Image.fromarray(picture).quantize(4)
    data = encode(image, "PNG", transparency=image.getpixel((0, 0)))
    decoded = decode(data, channels=4)
    assert (decoded[: H // 2, : W // 2, 3] == 0).all()
    assert (decoded[H // 2 :, :, 3] == 255).all()
    assert_close(decoded[H // 2 :, :, :3], picture[H // 2 :], 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_four_channels_of_a_file_without_transparency_are_opaque(picture, kind):
    options = {"quality": 95} if kind == "JPEG" else {}
    decoded = decode(encode(Image.fromarray(picture), kind, **options), channels=4)
    assert decoded.shape == (H, W, 4)
    assert (decoded[..., 3] == 255).all()
    assert_close(decoded[..., :3], picture, 3)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_any_number_of_channels(picture, orientation, channels):
    alpha = np.arange(1, H + 1, dtype=np.uint8)[:, None, None] * np.ones((1, W, 1), np.uint8)
    upright = picture if channels == 1 else np.concatenate([picture, alpha], -1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored_with_orientation(upright, orientation))
    decoded = decode(encode(image, "PNG", exif=exif.tobytes()), channels)
    if channels == 4:
        np.testing.assert_array_equal(decoded, upright)
    else:
        assert decoded.shape == (H, W, 1)
        assert np.abs(decoded - luma(picture)).max() <= 0.51


@pytest.mark.parametrize("channels", [0, 2, 5])
def test_numbers_of_channels_that_files_do_not_have_are_refused(channels):
    with pytest.raises(Fault, match=rf"data\.channels={channels}: .*1 .*, 3 .* or 4 ") as refused:
        check_channels(channels)
    assert refused.value.code == BAD_CONFIG
