"""One's own files on the command line: photos and panoramas larger than the server takes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.commands import app
from tests.cli.test_cli import lookalike
from tests.support.images.pngs import picture
from tests.support.paths import DATA
from training.data.images.decode_files import decode_images
from training.progress import ignore
from vision.formats.detect import FORMATS, in_words
from vision.image.limits import OWN_FILE_LIMITS
from vision.image.preprocessing import Preprocessing


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of large files, and of a small one of each of the other kinds."""
    folder = tmp_path / "photos" / "view"
    folder.mkdir(parents=True)
    photo = picture(1, (800, 600))
    photo.resize((8000, 6000)).save(folder / "phone.jpg", quality=40)
    photo.resize((17_000, 900)).save(folder / "panorama.jpg", quality=40)
    Image.new("L", (17_000, 1600), 99).save(folder / "scan.png")
    photo.save(folder / "small.png")
    shutil.copy(DATA / "phone.heic", folder)
    photo.resize((90, 60)).save(folder / "scan.tif", compression="tiff_lzw")
    photo.resize((90, 60)).save(folder / "net.avif")
    return tmp_path


def test_large_files_are_indexed_classified_searched_and_put_into_a_gallery(
    photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    (photos / "model").symlink_to(model)
    built = lookalike(
        *("index", "build", "model", "--data", "photos", "--out", "gallery", "--json"), cwd=photos
    )
    assert built.returncode == 0, built.stderr
    report = json.loads(built.stdout)
    assert (report["added"], report["refused"]) == (7, [])

    for name in ("phone.jpg", "panorama.jpg", "scan.png", "phone.heic"):
        path = f"photos/view/{name}"
        said = CliRunner().invoke(app, ["classify", "model", path, "--json"])
        found = CliRunner().invoke(app, ["search", "gallery", path, "-k", "1", "--json"])
        replaced = CliRunner().invoke(app, ["index", "replace", "gallery", "view:small.png", path])
        assert (said.exception, found.exception, replaced.exception) == (None, None, None)
        assert json.loads(found.stdout)["hits"][0]["score"] > 0.999


def test_a_refusal_says_what_the_picture_has_and_what_is_allowed(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "film.jpg").open("wb") as file:
        file.truncate(OWN_FILE_LIMITS.max_bytes + 5)
    Image.new("1", (110_000, 1)).save(tmp_path / "line.png")
    (tmp_path / "phone.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    sentences = {
        "film.jpg": f"the image has {OWN_FILE_LIMITS.max_bytes + 5} bytes; at most",
        "line.png": "the image has 110000 x 1 pixels; a side may have at most 100000",
        "phone.jxl": f"phone.jxl: this is a JPEG XL picture; {in_words(FORMATS)} is expected",
    }

    for name, sentence in sentences.items():
        done = CliRunner().invoke(app, ["classify", str(model), name])
        assert done.exit_code == 1
        assert sentence in str(done.exception)


def test_training_reads_large_files_and_tells_of_those_it_does_not(tmp_path: Path) -> None:
    Image.new("L", (17_000, 1600), 99).save(tmp_path / "scan.png")
    with (tmp_path / "film.jpg").open("wb") as file:
        file.truncate(OWN_FILE_LIMITS.max_bytes + 5)
    preprocessing = Preprocessing(size=16, channels=1, mean=(0.5,), std=(0.5,))
    paths = [tmp_path / "scan.png", tmp_path / "film.jpg"]

    decoded = decode_images(paths, preprocessing, ignore)

    assert decoded.readable_M.tolist() == [0]
    assert decoded.images_NCHW[0].tolist() == [[[99] * 16] * 16]
    (refused,) = decoded.unreadable
    assert f"has {OWN_FILE_LIMITS.max_bytes + 5} bytes" in refused.reason


def test_a_picture_of_few_bits_is_not_dark_in_silence(tmp_path: Path, model: Path) -> None:
    gray = np.asarray(picture(3, (40, 30), "L"), np.uint32)
    for bits in (12, 16):
        values = (gray * ((1 << bits) - 1) // 255).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{bits}.png")

    told, silent = (
        CliRunner().invoke(app, ["classify", str(model), str(tmp_path / f"{bits}.png")])
        for bits in (12, 16)
    )

    assert (told.exception, silent.exception) == (None, None)
    assert "12.png uses only 12 of its 16 bits" in told.stderr
    assert "bits" not in silent.stderr
