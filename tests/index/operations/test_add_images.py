"""A folder of images becomes a gallery: interrupted, changed, broken, with thumbnails."""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.source import list_source
from index.decoding.file_decoder_pool import SLICES_AHEAD
from index.errors import ModelMismatchError
from index.gallery import Gallery
from index.items.source_entries import ImageEntry, image_entries
from index.operations.add_images import build
from index.operations.build_report import BuildReport
from tests.support.fakes import FakeEncoder
from tests.support.images.pngs import bomb_png, encoded, picture, png
from vision.image.limits import DEFAULT_LIMITS
from vision.image.thumbnail import make_thumbnail


def make(folder: Path, encoder: FakeEncoder) -> Gallery:
    return Gallery.create(
        folder,
        model_name=encoder.manifest.name,
        fingerprint=encoder.manifest.fingerprint,
        width=encoder.width,
    )


def run(
    gallery: Gallery,
    entries: Iterable[ImageEntry],
    encoder: FakeEncoder,
    progress: list[int],
    *,
    source: str = "here",
    prune: bool = False,
) -> BuildReport:
    return build(
        gallery,
        entries,
        source=source,
        encoder=encoder,
        limits=DEFAULT_LIMITS,
        on_progress=progress.append,
        prune=prune,
    )


def some_entries(count: int) -> list[ImageEntry]:
    return [
        ImageEntry(id=f"i{n}", data=png(n, (28, 28)), label=f"l{n % 3}", metadata={"n": n})
        for n in range(count)
    ]


def content(gallery: Gallery) -> dict[str, tuple[object, ...]]:
    return {
        item.id: (
            item.label,
            item.metadata["n"],
            item.content_sha256,
            gallery.vector(item.id).tobytes(),
            gallery.thumbnail(item.id),
        )
        for item in gallery.page(limit=10_000).items
    }


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.operations.add_images.CHUNK", 20)
    monkeypatch.setattr("index.operations.add_images.SLICE", 5)


@pytest.mark.usefixtures("small_chunks")
def test_every_image_is_stored_with_the_vector_of_its_pixels(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    entries, progress = some_entries(50), list[int]()
    with make(tmp_path / "g", encoder) as gallery:
        report = run(gallery, entries, encoder, progress)

        assert (report.added, report.unchanged, report.replaced, report.refused) == (50, 0, 0, [])
        assert sum(progress) == 50
        assert report.images_per_second > 0
        for entry in entries:
            pixels = encoder.manifest.preprocessing.pixels(
                encoder.manifest.preprocessing.decode(entry.data)
            )
            expected = FakeEncoder().encode(pixels[np.newaxis]).vectors_BD[0]
            np.testing.assert_array_equal(gallery.vector(entry.id), expected)
            stored = gallery.get(entry.id)
            assert (stored.label, stored.metadata) == (entry.label, entry.metadata)
            assert stored.content_sha256 == hashlib.sha256(entry.data).hexdigest()
        assert gallery.verify() == []


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("batches", [0, 1, 3, 5])
def test_an_interrupted_build_goes_on_and_ends_with_the_same_gallery(
    tmp_path: Path, batches: int
) -> None:
    entries = some_entries(70)
    whole = FakeEncoder()
    with make(tmp_path / "whole", whole) as gallery:
        run(gallery, entries, whole, [])
        expected = content(gallery)

    left = iter(range(batches))

    def interrupt() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    first = FakeEncoder(before=interrupt)
    gallery = make(tmp_path / "resumed", first)
    with pytest.raises(KeyboardInterrupt):
        run(gallery, entries, first, [])
    kept = gallery.count
    gallery.close()
    assert kept == batches // 4 * 20, "whole chunks are kept, a part of one is not"

    second = FakeEncoder()
    with Gallery.open(tmp_path / "resumed", fingerprint=second.manifest.fingerprint) as gallery:
        report = run(gallery, entries, second, [])

        assert (report.unchanged, report.added, report.replaced) == (kept, 70 - kept, 0)
        assert second.encoded == 70 - kept, "what was stored is not encoded again"
        assert content(gallery) == expected


def test_broken_images_are_listed_and_the_others_stored(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    good = png(1)
    entries = [
        ImageEntry(id="good", data=good),
        ImageEntry(id="empty", data=b""),
        ImageEntry(id="text", data=b"not an image"),
        ImageEntry(id="cut", data=good[: len(good) // 2]),
        ImageEntry(id="bomb", data=bomb_png(60_000, 60_000)),
        ImageEntry(id="bad/id", data=good),
        ImageEntry(id="bad-label", data=good, label="a\nb"),
        ImageEntry(id="unread", data=Path("/nowhere/at/all.png")),
        ImageEntry(id="good2", data=encoded(picture(2), "JPEG")),
    ]
    progress: list[int] = []
    with make(tmp_path / "g", encoder) as gallery:
        report = run(gallery, entries, encoder, progress)

        assert report.added == gallery.count == 2
        assert sum(progress) == len(entries)
        reasons = dict(report.refused)
        assert list(reasons) == ["empty", "text", "cut", "bomb", "bad/id", "bad-label", "unread"]
        assert "0 bytes" in reasons["empty"]
        assert "not a JPEG" in reasons["text"]
        assert "truncated" in reasons["cut"]
        assert "pixels" in reasons["bomb"]
        assert "cannot be read" in reasons["unread"]


def test_changed_content_or_label_replaces_an_image(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with make(tmp_path / "g", encoder) as gallery:
        run(gallery, [ImageEntry(id=name, data=png(1), label="x") for name in "abc"], encoder, [])

        report = run(
            gallery,
            [
                ImageEntry(id="a", data=png(1), label="x"),
                ImageEntry(id="b", data=png(2), label="x"),
                ImageEntry(id="c", data=png(1), label="y"),
            ],
            encoder,
            [],
        )

        assert (report.unchanged, report.replaced, report.added) == (1, 2, 0)
        assert gallery.get("c").label == "y"
        assert gallery.count == 3


def test_a_folder_becomes_a_gallery(tmp_path: Path) -> None:
    for n in range(4):
        path = tmp_path / "images" / f"class{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(n))
    encoder = FakeEncoder()
    with make(tmp_path / "g", encoder) as gallery:
        entries = image_entries(list_source(tmp_path / "images"))
        report = run(gallery, entries, encoder, [])

        assert report.added == 4
        assert gallery.get("class1:3.png").label == "class1"


def test_no_more_entries_are_read_than_are_in_work_and_in_two_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.operations.add_images.CHUNK", 10)
    monkeypatch.setattr("index.operations.add_images.SLICE", 5)
    encoder = FakeEncoder()
    read = 0
    ahead: list[int] = []

    def entries() -> Iterator[ImageEntry]:
        nonlocal read
        for entry in some_entries(120):
            read += 1
            yield entry

    with make(tmp_path / "g", encoder) as gallery:
        build(
            gallery,
            entries(),
            source="here",
            encoder=encoder,
            limits=DEFAULT_LIMITS,
            on_progress=lambda _: ahead.append(read - gallery.count),
        )
        assert gallery.count == 120

    assert max(ahead) <= (SLICES_AHEAD + 1) * 5 + 2 * 10


def test_a_build_with_another_model_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with make(tmp_path / "g", FakeEncoder()) as gallery, pytest.raises(ModelMismatchError):
        run(gallery, iter(some_entries(1)), FakeEncoder(name="other"), [])


def test_a_build_leaves_no_thread_behind(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    before = threading.active_count()
    with make(tmp_path / "g", encoder) as gallery:
        run(gallery, some_entries(5), encoder, [])
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("size", "media_type", "expected"),
    [
        ((28, 28), "image/png", (28, 28)),
        ((64, 64), "image/png", (64, 64)),
        ((65, 10), "image/jpeg", (65, 10)),
        ((256, 100), "image/jpeg", (256, 100)),
        ((1000, 500), "image/jpeg", (256, 128)),
        ((3000, 2), "image/jpeg", (256, 1)),
    ],
)
def test_a_thumbnail_is_small_and_of_the_same_shape(
    size: tuple[int, int], media_type: str, expected: tuple[int, int], tmp_path: Path
) -> None:
    image = picture(1, size)

    thumbnail = make_thumbnail(image)

    (tmp_path / "t").write_bytes(thumbnail.data)
    with Image.open(tmp_path / "t") as opened:
        assert (opened.size, opened.get_format_mimetype()) == (expected, media_type)
        assert opened.mode == "RGB"
        if media_type == "image/png":
            assert opened.tobytes() == image.tobytes()
    assert image.size == size


def test_a_thumbnail_carries_nothing_but_pixels() -> None:
    image = picture(1, (100, 100))
    image.info = {"icc_profile": b"secret place", "exif": b"Exif\0\0secret place", "comment": b"x"}

    assert b"secret" not in make_thumbnail(image).data
