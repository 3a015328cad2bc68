"""Folders of images and Fashion-MNIST as data to learn from: parts, labels, copies, refusals."""

import gzip
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import calculate_md5

from dataset.errors import DatasetError
from dataset.listing import Part
from tests.support.faults.loop_filesystems import small_filesystem
from tests.support.galleries.labelled_gallery import labelled
from tests.support.images.pngs import picture
from tests.support.learners import images_done
from training.data.dataset import load_dataset
from training.data.images import fashion_mnist, pixel_buffer
from training.data.images.decode_files import fit_grey_images
from training.data.images.fashion_mnist import (
    PACKAGE_FOLDER,
    SIDE,
    TEST_FILES,
    TEST_IMAGES,
    TRAIN_FILES,
    TRAIN_IMAGES,
    _read_idx,
    find_fashion_mnist,
    read_fashion_mnist,
)
from training.data.images.labelled_images import LabelledImages
from training.data.images.load import load_images
from training.data.images.pixel_buffer import pixel_array, put_in_order
from training.errors import DataError
from training.progress import ignore
from training.recipes.from_scratch import cnn
from vision.image.preprocessing import Preprocessing

SMALL = Preprocessing(size=12, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, (16, 14)).save(path)


def class_folders(
    folder: Path, *, classes: tuple[str, ...] = ("bag", "coat"), each: int, first_seed: int = 0
) -> Path:
    for number, name in enumerate(classes):
        for image in range(each):
            save(folder / name / f"{image}.png", first_seed + 100 * number + image)
    return folder


def three_parts(folder: Path, *, classes: tuple[str, ...] = ("bag", "coat")) -> Path:
    for number, (part, each) in enumerate((("train", 4), ("validation", 3), ("test", 2))):
        class_folders(folder / part, classes=classes, each=each, first_seed=10 * number)
    return folder


# A folder of class folders


def test_a_folder_is_split_the_same_way_every_time_with_every_class_in_both_parts(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path, each=40)
    first, second = (load_dataset(str(tmp_path), SMALL) for _ in range(2))
    assert first.label_names == ("bag", "coat")
    assert first.train.images_NCHW.shape == (80 - len(first.test), 3, 12, 12)
    assert all(3 <= count <= 14 for count in np.bincount(first.test.labels_N))  # 8 are expected
    assert first.to_json() == second.to_json()


def parts_of(folder: Path) -> dict[int, str]:
    """Return the part of each file, by its content."""
    dataset = load_dataset(str(folder), SMALL)
    return {
        content: part
        for part, images in (("train", dataset.train), ("test", dataset.test))
        for content in images.contents_N.tolist()
    }


def test_adding_renaming_and_moving_files_moves_no_other_from_part_to_part(tmp_path: Path) -> None:
    class_folders(tmp_path, each=40)
    before = parts_of(tmp_path)
    save(tmp_path / "bag" / "0000-new.png", 4711)
    after = parts_of(tmp_path)
    assert len(after) == 81
    assert {content: after[content] for content in before} == before
    for path in sorted((tmp_path / "coat").iterdir())[::3]:
        path.rename(path.with_name(f"zz-{path.name}"))
    (tmp_path / "bag" / "deeper").mkdir()
    for path in sorted((tmp_path / "bag").glob("1*.png")):
        path.rename(path.parent / "deeper" / path.name)
    assert parts_of(tmp_path) == after
    for path in sorted((tmp_path / "bag").glob("2*.png")):
        path.unlink()
    left = parts_of(tmp_path)
    assert left == {content: after[content] for content in left}


def test_the_part_of_a_file_does_not_depend_on_the_input_of_the_network(tmp_path: Path) -> None:
    class_folders(tmp_path, each=20)
    larger = Preprocessing(size=20, channels=1, mean=(0.5,), std=(0.5,), fit="squash")
    small, large = (load_dataset(str(tmp_path), wanted) for wanted in (SMALL, larger))
    assert small.test.contents_N.tolist() == large.test.contents_N.tolist()
    assert small.train.contents_N.tolist() == large.train.contents_N.tolist()


def test_a_class_of_a_single_photo_is_learnt_and_not_measured_and_said(tmp_path: Path) -> None:
    class_folders(tmp_path, each=6)
    for number, name in enumerate(("cap", "dress", "glove", "hat")):
        save(tmp_path / name / "only.png", 900 + number)
    for number in range(3):  # three files, one photo
        save(tmp_path / "scarf" / f"{number}.png", 950)
    dataset = load_dataset(str(tmp_path), SMALL)
    assert dataset.label_names == ("bag", "cap", "coat", "dress", "glove", "hat", "scarf")
    assert np.bincount(dataset.train.labels_N)[[1, 3, 4, 5, 6]].tolist() == [1, 1, 1, 1, 3]
    assert set(dataset.test.labels_N.tolist()) == {0, 2}
    said = {finding.reason: finding for finding in dataset.findings}
    single = said["class with a single photo: learnt from, not measured"]
    assert (single.count, single.examples) == (5, ("cap", "dress", "glove"))


def test_where_no_class_has_two_photos_there_is_nothing_to_measure_with(tmp_path: Path) -> None:
    class_folders(tmp_path, each=1)
    with pytest.raises(DataError, match="leaves nothing to measure with: no class has two"):
        load_dataset(str(tmp_path), SMALL)


@pytest.mark.parametrize("name", ["test", "validation", "val"])
def test_a_test_part_of_its_own_is_used(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path / "train", each=3)
    class_folders(tmp_path / name, each=2, first_seed=10)
    dataset = load_dataset(str(tmp_path), SMALL)
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert dataset.test.label_names == ("bag", "coat")
    assert dataset.validation is None


@pytest.mark.parametrize("name", ["validation", "val"])
def test_beside_a_test_part_the_validation_part_is_a_part_of_its_own(
    tmp_path: Path, name: str
) -> None:
    three_parts(tmp_path)
    (tmp_path / "validation").rename(tmp_path / name)
    dataset = load_dataset(str(tmp_path), SMALL)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (8, 6, 4)
    assert np.bincount(dataset.validation.labels_N).tolist() == [3, 3]
    assert dataset.to_json()["validation_images"] == 6
    assert dataset.to_json()["validation_fingerprint"] == dataset.validation.fingerprint


def test_every_image_keeps_its_label_wherever_it_is_moved(tmp_path: Path) -> None:
    three_parts(tmp_path, classes=("bag", "coat", "hat"))
    (tmp_path / "train" / "bag" / "1.png").write_bytes(b"broken")  # the rows behind it close up
    dataset = load_dataset(str(tmp_path), SMALL, hold_out=["coat"])
    assert dataset.validation is not None
    assert dataset.held_out is not None
    parts = {
        "train": [dataset.train, dataset.held_out.train],
        "validation": [dataset.validation],
        "test": [dataset.test, dataset.held_out.test],
    }
    for folder, images in parts.items():
        for part in images:
            expected = [
                (label, SMALL.pixels(SMALL.decode(path.read_bytes())))
                for label, name in enumerate(part.label_names)
                for path in sorted((tmp_path / folder / name).iterdir())
                if path.read_bytes() != b"broken"
            ]
            assert part.labels_N.tolist() == [label for label, _ in expected]
            np.testing.assert_array_equal(part.images_NCHW, [pixels for _, pixels in expected])


def test_a_part_of_whole_contents_tells_nothing_of_the_others(tmp_path: Path) -> None:
    class_folders(tmp_path, each=20)
    for number in range(15):  # most of them twice, saved anew
        image = Image.open(tmp_path / "bag" / f"{number}.png")
        image.save(tmp_path / "bag" / f"again-{number}.bmp")
    dataset = load_dataset(str(tmp_path), SMALL)
    train, test = (set(map(bytes, part.images_NCHW)) for part in (dataset.train, dataset.test))
    assert not train & test
    assert set(dataset.test.labels_N.tolist()) == {0, 1}
    assert dataset.leaked == ()


def test_a_training_image_that_is_also_in_the_test_part_is_left_out_and_named(
    tmp_path: Path,
) -> None:
    three_parts(tmp_path)
    image = Image.open(tmp_path / "test" / "bag" / "0.png")
    image.save(tmp_path / "train" / "bag" / "copy.bmp")
    image.save(tmp_path / "validation" / "coat" / "copy.png", pnginfo=_comment())
    shutil.copy(
        tmp_path / "validation" / "coat" / "1.png", tmp_path / "train" / "coat" / "same.png"
    )
    dataset = load_dataset(str(tmp_path), SMALL)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (8, 6, 4)
    kept = str(tmp_path / "test" / "bag" / "0.png")
    kept_for_validation = str(tmp_path / "validation" / "coat" / "1.png")
    train, validation = tmp_path / "train", tmp_path / "validation"
    assert tuple(leak[:4] for leak in dataset.leaked) == (
        (str(train / "bag" / "copy.bmp"), "train", kept, "test"),
        (str(train / "coat" / "same.png"), "train", kept_for_validation, "validation"),
        (str(validation / "coat" / "copy.png"), "validation", kept, "test"),
    )
    assert dataset.to_json()["leaked"] == 3


def _comment() -> PngInfo:
    comment = PngInfo()
    comment.add_text("comment", "other bytes, the same pixels")
    return comment


def test_one_picture_in_two_classes_is_kept_and_named(tmp_path: Path) -> None:
    three_parts(tmp_path)
    first, second = (tmp_path / "train" / name / "0.png" for name in ("bag", "coat"))
    shutil.copy(first, second)
    dataset = load_dataset(str(tmp_path), SMALL)
    assert dataset.contradictions == ((str(first), str(second)),)
    assert len(dataset.train) == 8
    assert dataset.to_json()["contradictions"] == 1


# Classes that are held out


def test_held_out_classes_are_in_no_part(tmp_path: Path) -> None:
    three_parts(tmp_path, classes=("bag", "coat", "dress", "hat"))
    dataset = load_dataset(str(tmp_path), SMALL, hold_out=["hat", "bag"])
    assert dataset.label_names == ("coat", "dress")
    assert np.bincount(dataset.train.labels_N).tolist() == [4, 4]
    assert dataset.validation is not None
    for part, each in ((dataset.train, 4), (dataset.validation, 3), (dataset.test, 2)):
        assert part.label_names == ("coat", "dress")
        assert np.bincount(part.labels_N).tolist() == [each, each]
    assert dataset.held_out is not None
    for part, each in ((dataset.held_out.train, 4), (dataset.held_out.test, 2)):
        assert part.label_names == ("bag", "hat")
        assert np.bincount(part.labels_N).tolist() == [each, each]
    assert dataset.to_json()["held_out_classes"] == ["bag", "hat"]


@pytest.mark.parametrize(
    ("hold_out", "sentence"),
    [
        (["cat"], "has no class 'cat' to hold out"),
        (["bag"], "with 1 of 2 classes of .* held out 1 would be left; at least 2 are needed"),
        (["bag", "coat"], "with 2 of 2 classes of .* held out none would be left; at least 2"),
    ],
)
def test_what_cannot_be_held_out_is_refused_before_an_image_is_read(
    tmp_path: Path, hold_out: list[str], sentence: str
) -> None:
    class_folders(tmp_path, each=2)
    calls: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=sentence):
        load_dataset(
            str(tmp_path),
            SMALL,
            hold_out=hold_out,
            progress=images_done(calls),
        )
    assert not calls


# Pixels in memory and on disk


def test_parts_share_one_array(tmp_path: Path) -> None:
    dataset = load_dataset(str(three_parts(tmp_path)), SMALL)
    assert dataset.validation is not None
    owners = {
        id(part.images_NCHW.base) for part in (dataset.train, dataset.validation, dataset.test)
    }
    assert len(owners) == 1
    assert dataset.train.images_NCHW.flags.c_contiguous


def test_large_data_lie_in_a_temporary_file_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_parts(tmp_path / "data")
    (tmp_path / "data" / "train" / "bag" / "1.png").write_bytes(b"broken")
    in_memory = load_dataset(str(tmp_path / "data"), SMALL)
    monkeypatch.setattr(pixel_buffer, "MAX_BYTES_IN_MEMORY", 0)
    on_disk = load_dataset(str(tmp_path / "data"), SMALL)
    assert isinstance(on_disk.train.images_NCHW.base.base, np.memmap)
    assert on_disk.to_json() == in_memory.to_json()
    assert type(on_disk.train.images_NCHW) is np.ndarray
    some = np.array([5, 0, 0])
    np.testing.assert_array_equal(
        on_disk.train.take(some).images_NCHW, in_memory.train.images_NCHW[some]
    )
    on_disk.train.images_NCHW[0] = 7  # as torch asks of an array


def test_a_full_disk_is_told_before_an_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_buffer, "MAX_BYTES_IN_MEMORY", 0)
    with small_filesystem(tmp_path / "full", megabytes=1) as full:
        monkeypatch.setattr(tempfile, "tempdir", str(full))
        with pytest.raises(
            DataError, match=r"the images need 0.01 GiB in .*full, .* \(No space left on device\)"
        ):
            pixel_array((10, 1, 1024, 1024))


@given(st.permutations(range(12)), st.integers(0, 12))
def test_images_are_put_in_any_order_within_their_array(order: list[int], count: int) -> None:
    images_NCHW = np.random.default_rng(0).integers(0, 256, (12, 1, 2, 3)).astype(np.uint8)
    expected = images_NCHW[order[:count]]
    ordered_MCHW = put_in_order(images_NCHW, np.array(order[:count], np.int64))
    np.testing.assert_array_equal(ordered_MCHW, expected)
    assert np.shares_memory(ordered_MCHW, images_NCHW) or not count


@given(st.lists(st.integers(0, 9)))
def test_only_is_what_numpy_would_pick(positions: list[int]) -> None:
    images = labelled(
        np.arange(60, dtype=np.uint8).reshape(10, 1, 2, 3), np.arange(10) % 2, ("a", "b")
    )
    picked = images.take(np.array(positions, np.int64))
    np.testing.assert_array_equal(picked.images_NCHW, images.images_NCHW[positions])
    np.testing.assert_array_equal(picked.labels_N, images.labels_N[positions])
    np.testing.assert_array_equal(picked.contents_N, images.contents_N[positions])
    np.testing.assert_array_equal(picked.group_keys_N, images.group_keys_N[positions])


# What is refused


def test_pixels_are_those_that_serving_would_make(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", each=2)
    class_folders(tmp_path / "test", each=1, first_seed=10)
    dataset = load_dataset(str(tmp_path), SMALL)
    data = (tmp_path / "train" / "coat" / "1.png").read_bytes()
    np.testing.assert_array_equal(dataset.train.images_NCHW[3], SMALL.pixels(SMALL.decode(data)))


def test_unreadable_files_are_left_out_and_named(tmp_path: Path) -> None:
    class_folders(tmp_path, each=4)
    (tmp_path / "bag" / "notes.txt").write_text("not an image")
    (tmp_path / "coat" / "empty.jpg").touch()
    whole = (tmp_path / "coat" / "0.png").read_bytes()
    (tmp_path / "coat" / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "coat" / ".hidden").write_text("skipped")
    (tmp_path / "coat" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "coat" / "pipe.png")  # opening it would wait for ever
    dataset = load_dataset(str(tmp_path), SMALL)
    assert len(dataset.train) + len(dataset.test) == 8
    assert {path.name for path, _ in dataset.unreadable} == {"empty.jpg", "half.png"}
    assert all(reason for _, reason in dataset.unreadable)
    assert {example for one in dataset.findings for example in one.examples} >= {
        "bag/notes.txt",
        "coat/.hidden",
        "coat/gone.png",
        "coat/pipe.png",
    }


def test_empty_class_folders_and_images_without_a_class_are_said_and_left_out(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path, each=4)
    for name in ("dress", "hat"):
        (tmp_path / name).mkdir()
    save(tmp_path / "loose.png", 7)
    dataset = load_dataset(str(tmp_path), SMALL)
    assert dataset.label_names == ("bag", "coat")
    assert {one.reason: one.examples for one in dataset.findings} == {
        "a folder without pictures": ("dress", "hat"),
        "an image without a class: left out": ("loose.png",),
    }


def test_images_may_lie_deeper_in_a_class_folder_and_progress_is_told(tmp_path: Path) -> None:
    class_folders(tmp_path, each=2)
    save(tmp_path / "bag" / "2019" / "may" / "x.png", 7)
    calls: list[tuple[int, int]] = []
    load_dataset(str(tmp_path), SMALL, progress=images_done(calls))
    assert calls[-1] == (5, 5)


def test_where_nothing_is_to_be_learnt_one_class_in_any_part_is_enough(tmp_path: Path) -> None:
    class_folders(tmp_path / "test", classes=("bag",), each=3)
    loaded = load_images(str(tmp_path), SMALL, hold_out=None, progress=ignore)
    assert (loaded.label_names, loaded.labels_M.tolist()) == (("bag",), [0, 0, 0])
    assert set(loaded.parts_M.tolist()) == {Part.TEST}


def nothing(folder: Path) -> None:
    folder.rmdir()


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


def loose_images(folder: Path) -> None:
    save(folder / "a.png", 0)


def one_class(folder: Path) -> None:
    class_folders(folder, classes=("bag",), each=3)


def flat_parts(folder: Path) -> None:
    save(folder / "train" / "a.png", 0)
    save(folder / "test" / "b.png", 1)


def no_training_part(folder: Path) -> None:
    class_folders(folder / "test", each=2)
    class_folders(folder / "dev", each=2)


def no_images(folder: Path) -> None:
    for name in ("bag", "coat"):
        (folder / name).mkdir()
        (folder / name / "a.png").write_text("x")


def mostly_pointers(folder: Path) -> None:
    class_folders(folder, each=2)
    for number in range(9):
        (folder / "coat" / f"p{number}.jpg").write_text(
            "version https://git-lfs.github.com/spec/v1"
        )


def a_class_of_unreadable_files(folder: Path) -> None:
    class_folders(folder, each=2)
    (folder / "dress").mkdir()
    (folder / "dress" / "a.png").write_text("x")


def unknown_classes_in_test(folder: Path) -> None:
    class_folders(folder / "train", each=2)
    class_folders(folder / "test", classes=("bag", "cap", "hat"), each=1)


def an_unreadable_test_part(folder: Path) -> None:
    class_folders(folder / "train", each=2)
    for name in ("bag", "coat"):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "a.png").write_text("x")


def training_images_that_are_all_in_test(folder: Path) -> None:
    class_folders(folder / "train", each=2)
    class_folders(folder / "test", each=2)


def a_validation_part_that_is_in_test(folder: Path) -> None:
    three_parts(folder)
    shutil.rmtree(folder / "validation")
    shutil.copytree(folder / "test", folder / "validation")


def unprintable_classes(folder: Path) -> None:
    class_folders(folder, classes=("bag", "a\nb", "c\x7f"), each=2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (nothing, "is not there; a folder of images or a .csv, .tsv or .parquet table was"),
        (a_file, "is not a folder; a folder of images or a .csv, .tsv or .parquet table"),
        (lambda folder: None, "there are no images in"),
        (flat_parts, "holds images directly in its parts; one folder of images per class is"),
        (loose_images, "holds no class folders"),
        (one_class, "holds one class, 'bag'; at least 2 are needed"),
        (no_training_part, "holds nothing to learn from: all its images are for test and valid"),
        (no_images, "none of the 2 files is an image; the first, .*a.png: this is text, and not"),
        (mostly_pointers, r"9 of the \d+ files cannot be read as images; 9 of them: .*LFS"),
        (a_class_of_unreadable_files, "class 'dress' in .* has no readable training image"),
        (an_unreadable_test_part, "data has no readable test image of a class that is learnt"),
        (
            training_images_that_are_all_in_test,
            "classes bag, coat in .* have no training image that is in no",
        ),
        (a_validation_part_that_is_in_test, "has a validation part, but no image in it that is"),
        (unprintable_classes, r"classes with unprintable names, 'a\\nb', 'c\\x7f'; rename them"),
        (
            unknown_classes_in_test,
            r"no training image is of, .*: 'cap' \(1\), 'hat' \(1\); add",
        ),
    ],
)
def test_a_folder_nothing_can_be_learnt_from_is_refused_with_a_sentence(
    tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises((DataError, DatasetError), match=sentence):
        load_dataset(str(folder), SMALL)


def test_a_fingerprint_changes_with_every_pixel_label_and_name() -> None:
    def images(**changed: object) -> LabelledImages:
        fields: dict[str, object] = {
            "images_NCHW": np.zeros((2, 1, 3, 3), np.uint8),
            "labels_N": np.array([0, 1]),
            "label_names": ("a", "b"),
        }
        return labelled(**{**fields, **changed})  # type: ignore[arg-type]

    pixel = np.zeros((2, 1, 3, 3), np.uint8)
    pixel[1, 0, 2, 2] = 1
    variants = [
        images(),
        images(images_NCHW=pixel),
        images(labels_N=np.array([1, 0])),
        images(label_names=("a", "c")),
    ]
    assert images().fingerprint == images().fingerprint
    assert len({variant.fingerprint for variant in variants}) == 4


# Fashion-MNIST


def idx(shape: tuple[int, ...], data: bytes, *, kind: int = 8) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    return bytes((0, 0, kind, len(shape))) + sizes + data


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files with the right sizes and nothing but zeros in them."""
    folder = tmp_path_factory.mktemp("zeros")
    for names, count in ((TRAIN_FILES, TRAIN_IMAGES), (TEST_FILES, TEST_IMAGES)):
        for name, shape in zip(names, ((count, SIDE, SIDE), (count,)), strict=True):
            data = idx(shape, bytes(int(np.prod(shape))))
            (folder / name).write_bytes(gzip.compress(data, compresslevel=1))
    return folder


def test_what_the_two_parts_share_leaves_the_training_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first, names, count in ((0, TRAIN_FILES, 60_000), (59_999, TEST_FILES, 10_000)):
        images = np.zeros((count, SIDE * SIDE), np.uint8)
        images[:, :4] = (np.arange(count, dtype="<u4") + first).view(np.uint8).reshape(count, 4)
        data = [images, (np.arange(count) % 10).astype(np.uint8)]
        for name, values, shape in zip(names, data, ((count, 28, 28), (count,)), strict=True):
            (tmp_path / name).write_bytes(gzip.compress(idx(shape, values.tobytes()), 1))
    monkeypatch.setattr(fashion_mnist, "find_fashion_mnist", lambda: tmp_path)
    dataset = load_dataset("fashion-mnist", cnn().preprocessing, hold_out=["Bag"])
    assert [leak[:4] for leak in dataset.leaked] == [("train[59999]", "train", "test[0]", "test")]
    assert np.bincount(dataset.train.labels_N).tolist() == [6000] * 8 + [5999]
    assert dataset.held_out is not None
    assert (len(dataset.held_out.train), len(dataset.held_out.test)) == (6000, 1000)
    assert dataset.held_out.train.images_NCHW[1, 0, 0, :4].tolist() == [18, 0, 0, 0]


def test_pixels_of_another_size_are_those_that_serving_would_make() -> None:
    images_NHW = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE)).astype(np.uint8)
    calls: list[tuple[int, int]] = []
    decoded = fit_grey_images(images_NHW, SMALL, images_done(calls))
    for image_HW, image_CHW in zip(images_NHW, decoded.images_NCHW, strict=True):
        expected = SMALL.pixels(Image.fromarray(image_HW).convert("RGB"))
        np.testing.assert_array_equal(image_CHW, expected)
    assert calls[-1] == (5, 5)


def test_the_four_files_give_both_parts(zeros: Path) -> None:
    (train_images, train_labels), (test_images, test_labels) = read_fashion_mnist(zeros)
    assert train_images.shape == (60_000, 28, 28)
    assert test_images.shape == (10_000, 28, 28)
    assert (train_labels.shape, test_labels.shape) == ((60_000,), (10_000,))


def test_values_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx((2, 3), bytes(range(6)))))
    np.testing.assert_array_equal(_read_idx(path, (2, 3)), [[0, 1, 2], [3, 4, 5]])


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_web_page(path: Path) -> None:
    path.write_bytes(b"<html>404</html>")


def another_kind(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES), kind=9)))


def too_few(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES - 1))))


def too_many(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES + 1))))


def an_unknown_label(path: Path) -> None:
    path.write_bytes(gzip.compress(idx((TRAIN_IMAGES,), bytes(TRAIN_IMAGES - 1) + b"\x0a")))


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncated, "is damaged: not a whole gzip file"),
        (flipped, "is damaged"),
        (emptied, "is damaged: an idx file of 60000 bytes was expected"),
        (a_web_page, "is damaged: not a whole gzip file"),
        (another_kind, "is damaged: an idx file of 60000 bytes was expected"),
        (too_few, "60008 bytes were expected after decompression, got 60007"),
        (too_many, "60008 bytes were expected after decompression, got more"),
        (an_unknown_label, "labels of 0 to 9 were expected, got 10"),
        (removed, "is missing"),
    ],
)
def test_a_damaged_file_is_refused_with_a_sentence(
    tmp_path: Path, zeros: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    for path in zeros.iterdir():
        (tmp_path / path.name).symlink_to(path)
    victim = tmp_path / TRAIN_FILES[1]
    victim.unlink()
    shutil.copy(zeros / victim.name, victim)
    damage(victim)
    with pytest.raises(DataError, match=sentence) as caught:
        read_fashion_mnist(tmp_path)
    assert victim.name in str(caught.value)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def mirror(zeros: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server that has the four files, in the place of the real ones."""
    resources = [(path.name, calculate_md5(str(path))) for path in sorted(zeros.iterdir())]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(zeros))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/", address])
        yield address
        server.shutdown()


def test_without_the_package_files_are_downloaded_once_and_half_files_are_replaced(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / TRAIN_FILES[0]).write_bytes(b"half a file")
    folder = find_fashion_mnist(cache, package_folder=tmp_path / "not-installed")
    read_fashion_mnist(folder)
    monkeypatch.setattr(FashionMNIST, "mirrors", [])  # nothing more may be asked for
    assert find_fashion_mnist(cache, package_folder=tmp_path / "not-installed") == folder


def test_without_package_and_network_one_sentence_names_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/"])
    with pytest.raises(
        DataError, match=r"install the Debian package .*, or connect to the internet"
    ):
        find_fashion_mnist(tmp_path / "cache", package_folder=tmp_path / "not-installed")


def test_a_download_that_is_not_the_file_is_refused(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", [mirror])
    monkeypatch.setattr(FashionMNIST, "resources", [(TEST_FILES[1], "0" * 32)])
    with pytest.raises(DataError, match="connect to the internet"):
        find_fashion_mnist(tmp_path / "cache", package_folder=tmp_path / "not-installed")


@pytest.mark.skipif(not PACKAGE_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_files_hold_what_the_paper_says() -> None:
    dataset = load_dataset("fashion-mnist", cnn().preprocessing)
    assert np.bincount(dataset.train.labels_N).tolist() == [6000] * 10
    assert np.bincount(dataset.test.labels_N).tolist() == [1000] * 10
    assert dataset.train.labels_N[:5].tolist() == [9, 0, 0, 3, 0]
    _rest, validation = dataset.train.split_validation(0.02)
    assert np.bincount(validation.labels_N).tolist() == [120] * 10
    scaled = dataset.train.images_NCHW / np.float32(255)
    assert scaled.mean() == pytest.approx(cnn().preprocessing.mean[0], abs=1e-4)
    assert scaled.std() == pytest.approx(cnn().preprocessing.std[0], abs=1e-4)
    # its native pixels are what the slow way, through a picture, would give
    image = Image.fromarray(dataset.test.images_NCHW[7, 0]).convert("RGB")
    np.testing.assert_array_equal(dataset.test.images_NCHW[7], cnn().preprocessing.pixels(image))
