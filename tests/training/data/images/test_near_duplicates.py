"""Which files are copies of one photo: drawn pictures, and real photos saved once more."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.images.pngs import picture
from training.data.images.near_duplicates import group_near_duplicates
from training.data.images.photo_hashes import NO_PHASH, PhotoHashArrays, hash_photo

PLACES = [folder / "shared" / "datasets" for folder in Path(__file__).parents]
PHOTOS = next((place for place in PLACES if place.is_dir()), PLACES[0])
real_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="shared/datasets is not there")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def identities_of(files: list[bytes]) -> PhotoHashArrays:
    return PhotoHashArrays.of(
        [hash_photo(data, Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    )


def jpeg(quality: int) -> Callable[[Image.Image], bytes]:
    return lambda image: saved(image, "JPEG", quality=quality)


def scaled(factor: float) -> Callable[[Image.Image], bytes]:
    return lambda image: saved(
        image.resize((round(image.width * factor), round(image.height * factor))), "JPEG"
    )


def cropped(image: Image.Image) -> bytes:
    left, top = round(0.01 * image.width), round(0.01 * image.height)
    return saved(image.crop((left, top, image.width - left, image.height - top)), "JPEG")


def test_equal_bytes_and_equal_pixels_are_copies_and_others_are_not() -> None:
    comment = PngInfo()
    comment.add_text("comment", "other bytes, the same pixels")
    image = picture(1, (40, 30))
    files = [
        saved(image, "PNG"),
        saved(picture(2, (40, 30)), "PNG"),
        saved(image, "PNG"),
        saved(image, "PNG", pnginfo=comment),
        saved(image, "BMP"),
    ]
    groups = group_near_duplicates(identities_of(files))
    assert groups[[0, 2, 3, 4]].tolist() == [groups[0]] * 4
    assert groups[1] != groups[0]


def test_one_coloured_and_tiny_pictures_are_copies_only_if_their_pixels_are_equal() -> None:
    files = [saved(Image.new("RGB", (80, 60), (200, 10, shade)), "PNG") for shade in (0, 1, 2)] + [
        saved(picture(seed, (12, 12)), "PNG") for seed in (1, 2)
    ]
    hashes = identities_of(files)
    assert set(hashes.phashes_M.tolist()) == {NO_PHASH}
    assert len(set(group_near_duplicates(hashes).tolist())) == 5


def test_copies_of_copies_are_copies() -> None:
    image = picture(3, (90, 70))
    first = saved(image, "JPEG", quality=60)
    second = saved(Image.open(io.BytesIO(first)), "JPEG", quality=85)
    groups = group_near_duplicates(identities_of([saved(image, "PNG"), first, second]))
    assert len(set(groups.tolist())) == 1


def test_pairs_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [saved(picture(seed, (90, 70)), "PNG") for seed in range(7)]
    files += [saved(picture(seed, (90, 70)), "JPEG", quality=80) for seed in range(7)]
    hashes = identities_of(files)
    whole = group_near_duplicates(hashes)
    assert whole[:7].tolist() == whole[7:].tolist()
    assert len(set(whole.tolist())) == 7
    monkeypatch.setattr("training.data.images.near_duplicates.BLOCK", 3)
    monkeypatch.setattr("training.data.images.near_duplicates.PAIRS_AT_ONCE", 2)
    assert group_near_duplicates(hashes).tolist() == whole.tolist()


def test_of_no_image_there_is_no_group() -> None:
    identity = identities_of([saved(picture(1), "PNG")])
    assert group_near_duplicates(identity).tolist() == [0]


@real_photos
@pytest.mark.parametrize(
    ("kind", "change", "found"),
    [
        ("quality 60", jpeg(60), 1.0),
        ("quality 95", jpeg(95), 1.0),
        ("half the size", scaled(0.5), 0.95),
        ("half as large again", scaled(1.5), 1.0),
        ("cut by a hundredth", cropped, 0.9),
    ],
)
def test_photos_of_hands_saved_once_more_are_found_and_no_other_is(
    kind: str, change: Callable[[Image.Image], bytes], found: float
) -> None:
    paths = sorted((PHOTOS / "signs").rglob("*.JPG"))[::12]
    images = [Image.open(path).convert("RGB") for path in paths]
    originals = [path.read_bytes() for path in paths]
    groups = group_near_duplicates(identities_of(originals + [change(image) for image in images]))
    before, after = np.split(groups, 2)
    assert (before == after).mean() >= found, kind
    assert len(set(before.tolist())) == len(before)  # none is taken for a copy of another
