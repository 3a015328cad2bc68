"""Decoding: every format, mode and orientation; bombs, damage and limits."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.support.images.pngs import bomb_png, encoded, exif, picture, png
from vision.errors import (
    CorruptImageError,
    EmptyImageError,
    ImageError,
    TooManyBytesError,
    TooManyPixelsError,
    UnsupportedImageError,
)
from vision.image.decode import decode_image, harden_pillow
from vision.image.decoding_steps import _ONE_LARGE
from vision.image.limits import OWN_FILE_LIMITS, ImageLimits

LOSSLESS = ("PNG", "BMP")
ORIENTATION = 0x0112  # the EXIF tag
SMALL = ImageLimits(max_pixels=10_000, max_side=400)


@pytest.fixture(autouse=True, scope="module")
def _hardened() -> None:
    harden_pillow()


@pytest.mark.parametrize("image_format", LOSSLESS)
def test_a_lossless_image_comes_back_pixel_for_pixel(image_format: str) -> None:
    image = picture(1)

    decoded = decode_image(encoded(image, image_format))

    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "GIF"])
def test_a_lossy_image_comes_back_nearly_the_same(image_format: str) -> None:
    image = picture(2, (64, 48))

    decoded = decode_image(encoded(image, image_format))

    difference = np.abs(np.asarray(decoded, int) - np.asarray(image, int)).mean()
    assert decoded.size == (64, 48)
    assert difference < 12


def test_the_content_decides_and_not_a_name_or_a_type() -> None:
    assert decode_image(encoded(picture(3), "GIF")).size == (40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_every_exif_orientation_is_turned_upright(orientation: int, image_format: str) -> None:
    image = picture(4, (40, 20))
    data = encoded(image, image_format, exif=exif(orientation))
    flat = decode_image(encoded(image, image_format))
    flat.getexif()[ORIENTATION] = orientation

    decoded = decode_image(data)

    assert decoded.size == ((20, 40) if orientation >= 5 else (40, 20))
    np.testing.assert_array_equal(
        np.asarray(decoded), np.asarray(ImageOps.exif_transpose(flat)), str(orientation)
    )


def test_a_broken_exif_block_is_ignored() -> None:
    data = encoded(picture(5), "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 40)

    assert decode_image(data).size == (40, 30)


def test_transparent_pixels_show_white() -> None:
    transparent_red = Image.new("RGBA", (4, 4), (255, 0, 0, 0))

    decoded = decode_image(encoded(transparent_red))

    assert decoded.getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    decoded = decode_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))

    assert decoded.getpixel((0, 0)) == pytest.approx((127, 127, 127), abs=1)


def test_a_transparent_palette_colour_shows_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])

    decoded = decode_image(encoded(image, "PNG", transparency=0))

    assert decoded.getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_gray_keeps_its_upper_byte() -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)

    decoded = decode_image(encoded(Image.fromarray(values)))

    np.testing.assert_array_equal(np.asarray(decoded)[:, :, 0], (values >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "RGB"])
def test_every_mode_of_png_becomes_rgb(mode: str) -> None:
    image = picture(6).convert("RGBA").convert(mode) if mode != "P" else picture(6).convert("P")

    assert decode_image(encoded(image)).mode == "RGB"


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # full magenta and yellow: red

    red, green, blue = decode_image(encoded(image, "JPEG")).getpixel((8, 8))

    assert red > 200
    assert green < 60
    assert blue < 60


def test_gray_jpeg_becomes_rgb() -> None:
    assert decode_image(encoded(picture(7, mode="L"), "JPEG")).mode == "RGB"


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("#ff0000", "#00ff00")]
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])

    red, green, _ = decode_image(data).getpixel((8, 8))

    assert red > 240
    assert green < 15


def test_draft_decoding_shrinks_a_jpeg_but_not_below_the_wanted_side() -> None:
    data = encoded(picture(8, (1600, 1200)), "JPEG")

    decoded = decode_image(data, draft_side=250)

    assert decoded.size == (400, 300)


def test_no_bytes_are_an_empty_image() -> None:
    with pytest.raises(EmptyImageError):
        decode_image(b"")


def test_more_bytes_than_allowed_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(TooManyBytesError, match="101 bytes; at most 100"):
        decode_image(b"x" * 101, limits=ImageLimits(max_bytes=100))


@pytest.mark.parametrize("size", [(101, 100), (401, 1), (1, 401)])
def test_more_pixels_than_allowed_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(TooManyPixelsError):
        decode_image(encoded(Image.new("RGB", size)), limits=SMALL)


@pytest.mark.parametrize("size", [(100, 100), (400, 1), (1, 1)])
def test_as_many_pixels_as_allowed_are_decoded(size: tuple[int, int]) -> None:
    assert decode_image(encoded(Image.new("RGB", size)), limits=SMALL).size == size


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (20_000, 1)])
def test_a_bomb_is_refused_from_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(
        TooManyPixelsError, match=r"the image has \d[\d x]* pixels; (at most|a side)"
    ):
        decode_image(bomb_png(*size))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("sixteenth", range(1, 16))
def test_a_truncated_image_is_refused(image_format: str, sixteenth: int) -> None:
    data = encoded(picture(10, (64, 64)), image_format)

    with pytest.raises((CorruptImageError, UnsupportedImageError)):
        decode_image(data[: len(data) * sixteenth // 16])


def test_a_png_cut_inside_its_pixels_is_refused() -> None:
    data = png(11, (64, 64))

    with pytest.raises(CorruptImageError):
        decode_image(data[: len(data) // 2])


@settings(max_examples=300, deadline=None)
@given(
    image_format=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0.05, 1.0),
)
def test_a_mutated_image_is_decoded_or_refused_but_never_anything_else(
    image_format: str, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(encoded(picture(12, (32, 24)), image_format))
    for place, value in changes:
        data[int(place * len(data))] = value
    mutated = bytes(data[: max(1, int(keep * len(data)))])

    try:
        image = decode_image(mutated, limits=SMALL)
    except ImageError:
        return

    assert image.mode == "RGB"
    assert image.width * image.height <= SMALL.max_pixels


@settings(max_examples=100, deadline=None)
@given(
    tail=st.binary(max_size=200),
    signature=st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"GIF89a", b"BM"]
    ),
)
def test_random_bytes_behind_a_signature_are_refused_with_an_error_of_ours(
    tail: bytes, signature: bytes
) -> None:
    with pytest.raises(ImageError):
        decode_image(signature + tail)


def jpeg_of(size: tuple[int, int], **settings: object) -> bytes:
    return encoded(Image.new("RGB", size, "#204080"), "JPEG", **settings)


@pytest.mark.parametrize(
    ("size", "decoded"), [((280, 280), (35, 35)), ((400, 199), (50, 25)), ((1592, 48), (199, 6))]
)
def test_of_a_jpeg_the_pixels_that_are_decoded_count(
    size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    limits = ImageLimits(max_pixels=10_000, max_side=200)

    assert decode_image(jpeg_of(size), limits=limits, draft_side=1).size == decoded
    with pytest.raises(TooManyPixelsError, match=f"has {size[0]} x {size[1]} pixels"):
        decode_image(jpeg_of(size), limits=limits)
    with pytest.raises(TooManyPixelsError, match=f"has {size[0]} x {size[1]} pixels"):
        decode_image(encoded(Image.new("RGB", size)), limits=limits, draft_side=1)


def test_a_jpeg_is_decoded_smaller_than_asked_for_rather_than_refused() -> None:
    limits = ImageLimits(max_pixels=10_000)

    assert decode_image(jpeg_of((400, 200)), limits=limits, draft_side=150).size == (100, 50)


def test_a_jpeg_may_not_have_any_number_of_pixels_that_are_not_decoded() -> None:
    limits = ImageLimits(max_pixels=1_000)

    assert decode_image(jpeg_of((80, 100)), limits=limits, draft_side=1).size == (10, 13)
    with pytest.raises(TooManyPixelsError, match="has 81 x 100 pixels; at most 8000"):
        decode_image(jpeg_of((81, 100)), limits=limits, draft_side=1)


def test_a_progressive_jpeg_keeps_all_its_pixels_in_memory_and_pays_for_them() -> None:
    limits = ImageLimits(max_pixels=6_000)  # 48,000 bytes

    plain, kept = jpeg_of((200, 200)), jpeg_of((200, 200), progressive=True, subsampling=0)
    fits = jpeg_of((200, 80), progressive=True)

    assert decode_image(plain, limits=limits, draft_side=1).size == (25, 25)
    assert decode_image(fits, limits=limits, draft_side=1).size == (25, 10)
    with pytest.raises(
        TooManyPixelsError, match="200 pixels; at most 8000 are allowed in a progressive"
    ):
        decode_image(kept, limits=limits, draft_side=1)


def test_a_photo_of_108_megapixels_and_a_long_panorama_are_decoded() -> None:
    photo = jpeg_of((12_000, 9_000), quality=30)
    panorama = jpeg_of((17_000, 900), quality=30)
    sheet = encoded(Image.new("L", (17_000, 900)), "PNG")

    assert decode_image(photo, draft_side=448).size == (1500, 1125)
    assert decode_image(panorama, draft_side=448).size == (8500, 450)
    assert decode_image(panorama, limits=OWN_FILE_LIMITS).size == (17_000, 900)
    assert decode_image(sheet, limits=OWN_FILE_LIMITS).size == (17_000, 900)
    with pytest.raises(
        TooManyPixelsError, match="17000 x 900 pixels; a side may have at most 16384"
    ):
        decode_image(sheet)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg_of((400, 300))[:-2], id="seen when its pixels are decoded"),
        pytest.param(
            png(1, (400, 300))[:33] + b"\0\0\0\0tEXt\0\0\0\0" + png(1, (400, 300))[33:],
            id="seen before",
        ),
        pytest.param(encoded(picture(1, (400, 300)), "GIF")[:-3], id="decoded three times"),
    ],
)
def test_what_is_mended_tells_its_memory_once(data: bytes) -> None:
    told: list[int] = []

    decode_image(data, before_pixels=told.append)

    assert len(told) == 1
    assert told[0] >= 8 * 400 * 300


def test_errors_tell_nothing_of_the_library() -> None:
    with pytest.raises(CorruptImageError) as caught:
        decode_image(png(13)[:60])

    assert "BytesIO" not in str(caught.value)
    assert "Pillow" not in str(caught.value)


def test_a_file_larger_than_its_image_is_no_problem() -> None:
    data = encoded(picture(14), "JPEG") + b"PK\x03\x04 a tail that is not looked at"

    assert decode_image(data).size == (40, 30)


def test_limits_below_one_are_wrong_use() -> None:
    with pytest.raises(ValueError, match="max_pixels must be at least 1, got 0"):
        ImageLimits(max_pixels=0)


def test_decoding_leaves_no_file_open() -> None:
    stream = io.BytesIO(png(15))

    assert decode_image(stream.getvalue()).size == (40, 30)
    assert not stream.closed


def test_large_pictures_wait_for_one_another_and_small_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vision.image.decoding_steps.LARGE_BYTES", 100 * 100 * 8)
    small, large = png(1, (100, 100)), png(1, (101, 100))

    with ThreadPoolExecutor() as pool:
        with _ONE_LARGE:
            waiting = pool.submit(decode_image, large)
            assert pool.submit(decode_image, small).result(30).size == (100, 100)
            told = pool.submit(decode_image, large, before_pixels=lambda _: None)
            assert told.result(30).size == (101, 100)
            assert not waiting.done()
        assert waiting.result(30).size == (101, 100)
