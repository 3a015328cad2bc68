"""Pictures with an embedded colour profile: seen, and shown, as their sRGB originals."""

import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.support.images.icc_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    cmyk_profile,
    gamma,
    gray_profile,
    rgb_profile,
)
from tests.support.images.pngs import encoded, picture
from tests.support.models import manifest, write_model
from tests.support.paths import DATA
from vision.image.decode import decode_image
from vision.image.icc_profile import MAX_PROFILE_BYTES, to_srgb
from vision.image.preprocessing import Preprocessing
from vision.image.thumbnail import make_thumbnail
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import Manifest

WIDE = {"Display P3": DISPLAY_P3, "Adobe RGB": ADOBE_RGB, "ProPhoto": PROPHOTO}
NEW = Preprocessing(size=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
OLD = replace(NEW, decoding=1)
CREATED_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.getOpenProfile(io.BytesIO(profile))


def in_space(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an sRGB picture with the numbers that another space has for its colours."""
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), opened(profile))
    assert converted is not None
    return converted


def error(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean())


def photo(seed: int = 1) -> Image.Image:
    return picture(seed, (320, 240))


@pytest.mark.parametrize("profile", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_in_another_space_looks_like_its_srgb_original(
    profile: bytes, image_format: str
) -> None:
    settings = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {"lossless": True}
    settings = settings if image_format != "PNG" else {}
    plain = decode_image(encoded(photo(), image_format, **settings))
    wide = in_space(photo(), profile)
    data = encoded(wide, image_format, icc_profile=profile, **settings)

    assert error(wide, photo()) > 8
    # ProPhoto's steps are so wide that rounding in a JPEG, of Y, Cb and Cr, shows by itself.
    coarse = profile is PROPHOTO and image_format == "JPEG"
    assert error(decode_image(data), plain) < (1.5 if coarse else 1)


@pytest.mark.parametrize("profile", WIDE.values(), ids=WIDE)
def test_the_network_gives_nearly_the_vector_of_the_srgb_file(
    profile: bytes, tmp_path: Path
) -> None:
    write_model(tmp_path / "model")
    encoder = TorchEncoder.load(tmp_path / "model", device="cpu")
    preprocessing = encoder.manifest.preprocessing
    files = (
        encoded(photo(2), "JPEG", quality=95),
        encoded(in_space(photo(2), profile), "JPEG", quality=95, icc_profile=profile),
    )

    vectors_BD = encoder.encode(
        np.stack([preprocessing.pixels(preprocessing.decode(data)) for data in files])
    ).vectors_BD

    assert float(vectors_BD[0] @ vectors_BD[1]) > 0.999


def test_transparent_and_palette_pictures_are_converted_too() -> None:
    wide = in_space(photo(3), ADOBE_RGB)
    clear = wide.copy()
    clear.putalpha(Image.new("L", wide.size, 255))
    few = photo(3).quantize(32)
    palette = Image.frombytes(
        "RGB", (len(few.getpalette() or []) // 3, 1), bytes(few.getpalette() or [])
    )
    told = few.copy()
    told.putpalette(in_space(palette, ADOBE_RGB).tobytes())

    assert error(decode_image(encoded(clear, icc_profile=ADOBE_RGB)), photo(3)) < 1
    assert error(decode_image(encoded(told, icc_profile=ADOBE_RGB)), few.convert("RGB")) < 1


@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_gray_picture_of_another_gamma_is_converted(exponent: float, mode: str) -> None:
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    linear = np.where(
        (share := np.arange(256) / 255) <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4
    )
    told = Image.fromarray(
        np.round(255 * linear ** (1 / exponent)).astype(np.uint8).reshape(16, 16)
    )
    bright = np.arange(256).reshape(16, 16) > 100  # 8 bits of gamma 1 tell too few dark ones apart

    decoded = decode_image(encoded(told.convert(mode), icc_profile=gray_profile(exponent)))

    difference = np.abs(np.asarray(decoded, int) - np.asarray(gray, int)[..., np.newaxis])
    assert difference[bright].mean() < 1
    assert exponent != 1.0 or error(told.convert("RGB"), gray.convert("RGB")) > 20


def test_a_cmyk_picture_is_converted_by_its_profile() -> None:
    profile = cmyk_profile()
    inks = Image.new("CMYK", (16, 16), (0, 200, 200, 20))
    expected = ImageCms.profileToProfile(
        inks, opened(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert expected is not None

    data = encoded(inks, "JPEG", icc_profile=profile, quality=100)

    assert error(decode_image(data), expected) < 2
    assert error(decode_image(encoded(inks, "JPEG", quality=100)), expected) > 10


@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        pytest.param(b"\0" * 600, "RGB", id="zeros"),
        pytest.param(b"x", "RGB", id="one byte"),
        pytest.param(DISPLAY_P3[:200], "RGB", id="cut"),
        pytest.param(DISPLAY_P3[:400] + b"\xff" * 400, "RGB", id="of rubbish"),
        pytest.param(gray_profile(1.0), "RGB", id="gray, of a colour picture"),
        pytest.param(ADOBE_RGB, "L", id="of colours, of a gray picture"),
        pytest.param(cmyk_profile(), "RGB", id="of inks, of a colour picture"),
        pytest.param(DISPLAY_P3.replace(b"mntr", b"link"), "RGB", id="a device link"),
        pytest.param(DISPLAY_P3 + bytes(MAX_PROFILE_BYTES), "RGB", id="of 4 MiB"),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_broken_or_mismatched_profile_is_ignored(
    profile: bytes, mode: str, image_format: str
) -> None:
    image = photo(4).convert(mode)
    plain = decode_image(encoded(image, image_format))

    decoded = decode_image(encoded(image, image_format, icc_profile=profile))

    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(plain))


def test_a_profile_that_makes_everything_dark_is_ignored() -> None:
    absurd = rgb_profile(((0.01, 0.01, 0.01),) * 3, gamma(2.2))

    np.testing.assert_array_equal(
        np.asarray(decode_image(encoded(photo(5), icc_profile=absurd))), np.asarray(photo(5))
    )


@pytest.mark.parametrize("profile", [SRGB, CREATED_SRGB], ids=["tables", "parameters"])
def test_srgb_is_recognised_and_costs_nothing(profile: bytes) -> None:
    image = photo(6)

    assert to_srgb(image, profile) is image


def test_the_same_profile_on_many_threads_gives_the_same_pixels() -> None:
    data = encoded(in_space(photo(7), PROPHOTO), "PNG", icc_profile=PROPHOTO)
    expected = decode_image(data).tobytes()
    results: list[bool] = []

    def decode_often() -> None:
        for _ in range(10):
            results.append(decode_image(data).tobytes() == expected)

    threads = [threading.Thread(target=decode_often) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [True] * 60


def pixels(preprocessing: Preprocessing, data: bytes) -> NDArray[np.uint8]:
    return preprocessing.pixels(preprocessing.decode(data))


def test_an_older_model_goes_on_seeing_the_numbers_as_they_are() -> None:
    wide = in_space(photo(8), PROPHOTO)
    data, bare = encoded(wide, icc_profile=PROPHOTO), encoded(wide, icc_profile=None)

    np.testing.assert_array_equal(pixels(OLD, data), pixels(OLD, bare))
    np.testing.assert_array_equal(pixels(OLD, bare), pixels(NEW, bare))
    assert np.abs(pixels(NEW, data).astype(int) - pixels(OLD, data)).mean() > 8


@pytest.mark.parametrize("preprocessing", [OLD, NEW], ids=["older model", "new model"])
@pytest.mark.parametrize("size", [(320, 240), (48, 40)])
def test_a_thumbnail_shows_the_picture_in_srgb_for_models_of_any_age(
    preprocessing: Preprocessing, size: tuple[int, int]
) -> None:
    original = picture(9, size)
    data = encoded(in_space(original, ADOBE_RGB), icc_profile=ADOBE_RGB)

    shown = Image.open(io.BytesIO(make_thumbnail(preprocessing.decode(data)).data))
    expected = Image.open(io.BytesIO(make_thumbnail(preprocessing.decode(encoded(original))).data))

    assert error(shown, expected) < 1
    assert "icc_profile" not in shown.info


# The manifest of a model folder as version 0.4.0 wrote it, and the fingerprint it had there.
FIRST_MANIFEST = DATA / "manifest-0.4.0.json"
FIRST_FINGERPRINT = "3fc284653bb3ac6876d0bda6d37fccab02b671daa41dfbdf0942389ef43cb82b"


def test_a_model_of_version_0_4_0_keeps_its_text_fingerprint_and_decoding() -> None:
    text = FIRST_MANIFEST.read_bytes()

    read = Manifest.from_bytes(text)

    assert read.preprocessing.decoding == 1
    assert read.preprocessing.bits == 16
    assert read.to_bytes() == text
    assert read.fingerprint == FIRST_FINGERPRINT


def test_a_new_model_tells_its_decoding_and_has_another_fingerprint() -> None:
    new = manifest()
    old = replace(new, preprocessing=replace(new.preprocessing, decoding=1))
    deep = replace(new, preprocessing=replace(new.preprocessing, bits=12))

    for one in (new, old, deep):
        assert Manifest.from_bytes(one.to_bytes()) == one
    assert len({one.fingerprint for one in (new, old, deep)}) == 3


@pytest.mark.parametrize("decoding", [0, 3, "2", None])
def test_a_decoding_of_a_newer_program_is_refused(decoding: object) -> None:
    with pytest.raises(ValueError, match="decoding must be 1 or 2"):
        Preprocessing.from_json(
            {"size": 8, "channels": 1, "mean": [0.5], "std": [0.5], "decoding": decoding}
        )
