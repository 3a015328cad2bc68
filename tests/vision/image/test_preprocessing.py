"""Preprocessing: every image becomes the network's shape; crops, padding, the same bytes."""

from dataclasses import asdict, replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.images.pngs import encoded, picture
from vision.errors import CropError
from vision.image.preprocessing import MIN_CROP, CropBox, Fit, Preprocessing

GRAY = Preprocessing(size=28, channels=1, mean=(0.5,), std=(0.5,))
COLOUR = Preprocessing(size=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_an_image_of_the_right_size_passes_unchanged() -> None:
    image = picture(1, (28, 28), "L")

    pixels_CHW = GRAY.pixels(GRAY.decode(encoded(image)))

    np.testing.assert_array_equal(pixels_CHW[0], np.asarray(image))


@given(width=st.integers(1, 90), height=st.integers(1, 90), fit=st.sampled_from(get_args(Fit)))
def test_every_image_becomes_the_networks_shape(width: int, height: int, fit: Fit) -> None:
    mean = (9 / 255, 8 / 255, 7 / 255)
    preprocessing = Preprocessing(
        size=32, channels=3, mean=mean, std=(1.0,) * 3, fit=fit, crop_fraction=0.875
    )

    pixels_CHW = preprocessing.pixels(Image.new("RGB", (width, height), (9, 8, 7)))

    assert pixels_CHW.shape == (3, 32, 32)
    assert pixels_CHW.dtype == np.uint8
    assert pixels_CHW.flags.c_contiguous
    assert np.unique(pixels_CHW.reshape(3, -1), axis=1).ravel().tolist() == [9, 8, 7]


def test_padding_keeps_all_of_the_image_and_its_proportions() -> None:
    image = Image.new("RGB", (90, 30), "#ff0000")

    padded = Preprocessing(**{**asdict(COLOUR), "fit": "pad"}).pixels(image)

    red = (padded[0] > 200) & (padded[1] < 50) & (padded[2] < 50)
    assert red.any(axis=0).all()
    assert red.any(axis=1).sum() == pytest.approx(COLOUR.size / 3, abs=1)
    for channel, mean in enumerate(COLOUR.mean):
        assert (padded[channel, 0] == round(255 * mean)).all()
        assert (padded[channel, -1] == round(255 * mean)).all()
    grey = Preprocessing(**{**asdict(GRAY), "fit": "pad"}).pixels(image)
    assert grey[0, 0, 0] == round(255 * GRAY.mean[0])


def test_crop_keeps_the_middle_and_squash_keeps_all() -> None:
    image = Image.new("RGB", (90, 30), "#ff0000")
    image.paste("#0000ff", (30, 0, 60, 30))  # blue in the middle third

    cropped = COLOUR.pixels(image)
    squashed = Preprocessing(**{**asdict(COLOUR), "fit": "squash"}).pixels(image)

    assert cropped[2].min() > 200
    assert squashed[0, 16, 2] > 200
    assert squashed[2, 16, 16] > 200


def test_a_draft_decoded_jpeg_gives_nearly_the_same_pixels_as_a_full_decode() -> None:
    data = encoded(picture(2, (1600, 1200)), "JPEG", quality=95)
    full = COLOUR.pixels(Image.open(__import__("io").BytesIO(data)))

    drafted = COLOUR.pixels(COLOUR.decode(data))

    assert np.abs(drafted.astype(int) - full.astype(int)).mean() < 2


def test_the_same_bytes_always_give_the_same_pixels() -> None:
    data = encoded(picture(3, (640, 480)), "JPEG")

    first, second = (COLOUR.pixels(COLOUR.decode(data)) for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_a_crop_looks_at_its_part_alone() -> None:
    image = Image.new("RGB", (100, 100), "#ff0000")
    image.paste("#00ff00", (50, 50, 100, 100))

    pixels_CHW = COLOUR.pixels(image, crop=CropBox(top=0.5, left=0.5, bottom=1, right=1))

    assert pixels_CHW[1].min() == 255
    assert pixels_CHW[0].max() == 0


def test_a_crop_of_a_large_jpeg_keeps_its_detail() -> None:
    data = encoded(picture(4, (3200, 3200)), "JPEG")

    whole = COLOUR.decode(data)
    part = COLOUR.decode(data, crop=CropBox(top=0, left=0, bottom=0.1, right=0.1))

    assert whole.width == 400
    assert part.width == 3200


@pytest.mark.parametrize(
    ("top", "left", "bottom", "right"),
    [(0.5, 0, 0.5, 1), (0, 0.6, 1, 0.5), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, 0, float("nan"), 1)],
)
def test_a_crop_outside_the_image_is_refused(
    top: float, left: float, bottom: float, right: float
) -> None:
    with pytest.raises(CropError):
        CropBox(top=top, left=left, bottom=bottom, right=right)


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right"])
@pytest.mark.parametrize("share", [5e-324, 2.2250738585072014e-308, 1e-300, 1e-17, 1e-10])
def test_a_crop_of_next_to_nothing_is_refused(side: str, share: float) -> None:
    whole = {"top": 0.0, "left": 0.0, "bottom": 1.0, "right": 1.0}
    value = share if side in ("bottom", "right") else 1 - share

    with pytest.raises(CropError):
        CropBox(**{**whole, side: value})


@pytest.mark.parametrize("edge", [0.0, 0.5, 1 - 2 * MIN_CROP])
def test_the_thinnest_crop_is_cut_from_pictures_of_any_size(edge: float) -> None:
    box = CropBox(top=edge, left=edge, bottom=edge + 2 * MIN_CROP, right=edge + 2 * MIN_CROP)

    for size in ((1, 1), (40, 30), (65_535, 2), (2, 65_535)):
        assert box.cut(Image.new("L", size, 9)).getextrema() == (9, 9)
    assert COLOUR.pixels(COLOUR.decode(encoded(picture(5), "JPEG"), crop=box), crop=box).shape


def test_a_crop_thinner_than_a_pixel_still_holds_one() -> None:
    box = CropBox(top=0.5, left=0.5, bottom=0.5001, right=0.5001)

    assert box.cut(Image.new("RGB", (10, 10))).size == (1, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0),
        ("channels", 2),
        ("mean", (0.0,)),
        ("std", (0.0, 1.0, 1.0)),
        ("fit", "stretch"),
        ("crop_fraction", 0.0),
        ("crop_fraction", 1.5),
        ("interpolation", "nearest"),
        ("decoding", 3),
        ("bits", 7),
        ("bits", 17),
    ],
)
def test_a_setting_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Preprocessing(**{**asdict(COLOUR), field: value})


def test_the_description_survives_json() -> None:
    import json  # noqa: PLC0415

    for one in (COLOUR, replace(COLOUR, decoding=1), replace(COLOUR, bits=12)):
        assert Preprocessing.from_json(json.loads(json.dumps(one.to_json()))) == one
