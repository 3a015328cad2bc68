"""Gray pictures of 16 bits of which a camera used 10, 12 or 14."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.pictures import encoded, picture
from vision.depth import depth_of, is_deep_gray, largest_sample
from vision.image import decode_image
from vision.preprocess import Preprocessing

GRAY = np.asarray(picture(1, (64, 48), "L"))
DEEP = Preprocessing(size=48, channels=1, mean=(0.5,), std=(0.5,))


def deep_png(bits: int) -> bytes:
    """Return a gray PNG of 16 bits that uses ``bits`` of them."""
    values = GRAY.astype(np.uint32) * ((1 << bits) - 1) // 255
    return encoded(Image.fromarray(values.astype(np.uint16)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_that_are_used_show_the_picture(bits: int) -> None:
    decoded = np.asarray(decode_image(deep_png(bits), bits=bits))

    assert np.abs(decoded[..., 0].astype(int) - GRAY).max() <= 1


@pytest.mark.parametrize("bits", [10, 12])
def test_as_16_bits_it_would_be_nearly_black(bits: int) -> None:
    assert np.asarray(decode_image(deep_png(bits))).max() < 16


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_picture_that_uses_more_bits_than_others_is_not_white(bits: int) -> None:
    decoded = np.asarray(decode_image(deep_png(16), bits=bits))

    assert np.abs(decoded[..., 0].astype(int) - GRAY).max() <= 1


def test_the_models_preprocessing_says_how_many_bits_count() -> None:
    data = deep_png(12)

    twelve = replace(DEEP, bits=12)
    expected = DEEP.pixels(DEEP.decode(encoded(Image.fromarray(GRAY))))

    assert np.abs(twelve.pixels(twelve.decode(data)).astype(int) - expected).max() <= 2
    assert DEEP.pixels(DEEP.decode(data)).max() < 16


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(0, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (9000, 14), (65_535, 16)],
)
def test_the_largest_sample_tells_the_depth(largest: int, bits: int) -> None:
    assert depth_of(largest) == bits


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_largest_sample_of_a_file_is_found(bits: int) -> None:
    assert depth_of(largest_sample(deep_png(bits))) == bits


def test_files_of_16_bit_gray_are_told_by_their_first_bytes() -> None:
    assert is_deep_gray(deep_png(12)[:26])
    for other in (b"", b"\x89PNG\r\n\x1a\n", encoded(picture(1)), encoded(picture(1), "JPEG")):
        assert not is_deep_gray(other[:26])
