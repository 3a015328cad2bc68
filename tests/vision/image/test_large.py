"""Pictures that are too large to copy: made smaller strip by strip, in memory that is bounded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images.icc_profiles import DISPLAY_P3
from tests.support.images.pngs import encoded, picture
from tests.support.images.tiffs import GRAY, WHITE_IS_ZERO, tiff
from tests.support.paths import DATA
from tests.support.server.servers import ROOT
from vision.image.decode import decode_image, harden_pillow

BY = 3  # a picture of 90 x 60 pixels, of which the shorter side shall keep 20


@pytest.fixture(autouse=True)
def _small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    harden_pillow()
    monkeypatch.setattr("vision.image.decoding_steps.SHRUNK_PIXELS", 1000)
    monkeypatch.setattr("vision.image.strips.STRIP_PIXELS", 90 * 7)  # strips of six rows


def _exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def _deep(bits: int) -> np.ndarray:
    values = np.asarray(picture(2, (90, 60), "L")).astype(np.uint32)
    return (values * ((1 << bits) - 1) // 255).astype(np.uint16)


SMOOTH = picture(1, (90, 60))
CASES = {
    "PNG": encoded(SMOOTH),
    "PNG with alpha": encoded(picture(1, (90, 60), "RGBA")),
    "PNG with a palette and a transparent colour": encoded(SMOOTH.quantize(8), transparency=3),
    "PNG that is turned": encoded(SMOOTH, exif=_exif(6)),
    "PNG in Display P3": encoded(SMOOTH, icc_profile=DISPLAY_P3),
    "PNG of 12 bits": encoded(Image.fromarray(_deep(12))),
    "TIFF": encoded(SMOOTH, "TIFF"),
    "TIFF that is turned": encoded(SMOOTH, "TIFF", exif=_exif(5), compression="tiff_lzw"),
    "TIFF in CMYK": encoded(picture(1, (90, 60), "CMYK"), "TIFF"),
    "TIFF of 12 bits": tiff(_deep(12), photometric=GRAY),
    "TIFF whose white is 0": tiff(_deep(16), photometric=WHITE_IS_ZERO),
    "AVIF that is turned": encoded(SMOOTH, "AVIF", exif=_exif(8)),
    "WebP": encoded(SMOOTH, "WEBP"),
    "HEIC": (DATA / "phone.heic").read_bytes(),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES)
@pytest.mark.parametrize("managed", [True, False])
def test_strips_show_what_the_whole_picture_shows(data: bytes, managed: bool) -> None:
    whole = decode_image(data, managed=managed, bits=12)
    wanted = min(whole.size) // BY

    small = decode_image(data, managed=managed, bits=12, draft_side=wanted)

    expected = np.asarray(whole.reduce(BY), int)
    np.testing.assert_allclose(np.asarray(small, int), expected, atol=1)
    assert small.info == whole.info


def test_a_side_stays_as_long_as_it_is_wanted() -> None:
    data = encoded(picture(3, (200, 50)))

    assert decode_image(data, draft_side=20).size == (100, 25)
    assert decode_image(data, draft_side=26).size == (200, 50)


MEASURE = """
import io, json, resource, sys
from PIL import Image
from vision.image.decode import decode_image, harden_pillow
from vision.image.limits import OWN_FILE_LIMITS

def most_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

harden_pillow()
Image.init()
decode_image(open("tests/data/phone.heic", "rb").read())
data = open(sys.argv[1], "rb").read()
told, before = [], most_bytes()
size = decode_image(
    data, limits=OWN_FILE_LIMITS, draft_side=512, before_pixels=told.append
).size
print(json.dumps({"size": size, "took": most_bytes() - before, "told": told[0]}))
"""


@pytest.mark.parametrize(
    ("image_format", "mode", "per_pixel"),
    [("PNG", "RGBA", 4), ("TIFF", "RGB", 11), ("WEBP", "RGB", 16), ("AVIF", "RGB", 16)],
)
def test_a_long_panorama_takes_no_more_memory_than_is_said(
    tmp_path: Path, image_format: str, mode: str, per_pixel: int
) -> None:
    width, height = (16_000, 2_200) if image_format == "WEBP" else (20_000, 1_800)
    panorama = Image.new(mode, (width, height), "#204080")
    settings = {"PNG": {"compress_level": 1}, "AVIF": {"speed": 10}, "WEBP": {"method": 0}}
    panorama.save(tmp_path / "panorama", image_format, **settings.get(image_format, {}))

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "panorama")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    found = json.loads(done.stdout)
    by = height // 512
    assert found["size"] == [-(-width // by), -(-height // by)]
    assert found["told"] == per_pixel * width * height + 2**26
    assert found["took"] <= found["told"]
