"""Folders of pictures: which files are taken, as what, and what is said of the rest."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset.errors import DatasetError
from dataset.folders import walk
from dataset.folders.file_content import NOT_AN_IMAGE
from dataset.folders.folder import list_folder
from dataset.listing import Listing, Part
from tests.support.images.pngs import encoded, picture
from tests.support.listings import found, write
from tests.support.paths import DATA
from vision.formats.detect import FORMATS, HEIC


def claims(listing: Listing) -> dict[str, tuple[str | None, Part | None]]:
    return {file.key: (file.label, file.part) for file in listing.files}


# Classes and parts


def test_the_first_folder_is_the_class_however_deep_the_image_lies(tmp_path: Path) -> None:
    write(tmp_path, "shirt/b.png", "coat/a.png", "coat/deep/er/c.png", "flat.png")
    listing = list_folder(tmp_path)
    assert claims(listing) == {
        "coat/a.png": ("coat", None),
        "coat/deep/er/c.png": ("coat", None),
        "flat.png": (None, None),
        "shirt/b.png": ("shirt", None),
    }
    assert list(claims(listing)) == sorted(claims(listing))
    assert listing.labels == ("coat", "shirt")
    assert (listing.parts, found(listing)) == (frozenset(), {})


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", Part.TRAIN),
        ("Training", Part.TRAIN),
        ("training_set", Part.TRAIN),
        ("TRAIN", Part.TRAIN),
        ("val", Part.VALIDATION),
        ("Valid", Part.VALIDATION),
        ("validation", Part.VALIDATION),
        ("dev", Part.VALIDATION),
        ("test", Part.TEST),
        ("Testing", Part.TEST),
        ("eval", Part.TEST),
        ("Test Set", Part.TEST),
        ("val2017", Part.VALIDATION),
    ],
)
def test_usual_names_of_parts_are_known_in_any_case(tmp_path: Path, name: str, part: Part) -> None:
    write(tmp_path, f"{name}/hat/a.png", f"{name}/coat/deep/b.png")
    assert claims(list_folder(tmp_path)) == {
        f"{name}/hat/a.png": ("hat", part),
        f"{name}/coat/deep/b.png": ("coat", part),
    }


def test_parts_with_classes_give_the_classes_as_labels(tmp_path: Path) -> None:
    write(
        tmp_path, *(f"{part}/{name}/a.png" for part in ("Train", "valid", "test") for name in "xy")
    )
    listing = list_folder(tmp_path)
    assert listing.labels == ("x", "y")
    assert listing.parts == frozenset(Part)
    assert found(listing) == {}


def test_a_class_called_train_beside_other_classes_is_a_class_and_that_is_said(
    tmp_path: Path,
) -> None:
    write(tmp_path, "train/a.png", "car/b.png", "plane/c.png")
    listing = list_folder(tmp_path)
    assert listing.labels == ("car", "plane", "train")
    ((reason, examples),) = found(listing).items()
    assert "called like a part" in reason
    assert examples == (1, ("train",))


@pytest.mark.parametrize(
    "keys",
    [
        ("train/steam/a.png", "train/diesel/b.png", "car/c.png"),
        ("train/hat/a.png", "test/hat/b.png", "extra/c.png"),
        ("val/hat/a.png", "test/hat/b.png", "hat/c.png", "coat/d.png"),
        ("test/hat/a.png", "hat/b.png", "coat/c.png"),
    ],
)
def test_parts_beside_other_folders_are_refused_with_both_ways_out(
    tmp_path: Path, keys: tuple[str, ...]
) -> None:
    write(tmp_path, *keys)
    with pytest.raises(DatasetError, match=r"beside .*move the classes into .*such a name"):
        list_folder(tmp_path)


def test_a_folder_called_test_among_an_archive_is_a_folder_like_the_others(tmp_path: Path) -> None:
    write(tmp_path, "2019/a.png", "2020/b.png", "test/may/c.png")
    listing = list_folder(tmp_path)
    assert listing.labels == ("2019", "2020", "test")
    assert len(listing.findings) == 1


def test_two_names_of_one_part_are_taken_together_and_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, "train/hat/a.png", "val/hat/b.png", "validation/hat/c.png")
    listing = list_folder(tmp_path)
    assert [file.part for file in listing.files] == [Part.TRAIN, Part.VALIDATION, Part.VALIDATION]
    assert found(listing) == {
        "several names of the validation part: taken together": (1, ("val and validation",))
    }


def test_images_directly_in_parts_have_a_part_and_no_label(tmp_path: Path) -> None:
    write(tmp_path, "train/hat/a.png", "test/1.png")
    listing = list_folder(tmp_path)
    assert claims(listing) == {
        "test/1.png": (None, Part.TEST),
        "train/hat/a.png": ("hat", Part.TRAIN),
    }
    assert found(listing) == {
        "an image directly in a part, in no class folder: without a class": (1, ("test/1.png",))
    }


def test_a_folder_around_all_parts_is_looked_into_and_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, "archive/train/hat/a.png", "archive/test/hat/b.png")
    listing = list_folder(tmp_path)
    assert claims(listing) == {
        "archive/test/hat/b.png": ("hat", Part.TEST),
        "archive/train/hat/a.png": ("hat", Part.TRAIN),
    }
    assert found(listing) == {"a folder around all parts: looked into": (1, ("archive",))}


def test_a_part_inside_a_folder_of_its_own_name_is_looked_into(tmp_path: Path) -> None:
    write(tmp_path, *(f"training_set/training_set/{name}/a.png" for name in ("cat", "dog")))
    write(tmp_path, "test_set/test_set/cat/a.png", "val/val/a.png", "dev/train/a.png")
    listing = list_folder(tmp_path)
    assert claims(listing) == {
        "dev/train/a.png": ("train", Part.VALIDATION),
        "test_set/test_set/cat/a.png": ("cat", Part.TEST),
        "training_set/training_set/cat/a.png": ("cat", Part.TRAIN),
        "training_set/training_set/dog/a.png": ("dog", Part.TRAIN),
        "val/val/a.png": ("val", Part.VALIDATION),
    }


def test_parts_inside_classes_and_one_folder_around_all_are_said(tmp_path: Path) -> None:
    write(tmp_path / "a", "bottle/train/a.png", "bottle/test/b.png", "cable/train/c.png")
    assert found(list_folder(tmp_path / "a")) == {
        "a folder called like a part inside a class: its images are taken for the class's": (
            3,
            ("bottle/test", "bottle/train", "cable/train"),
        )
    }
    write(tmp_path / "b", "photos/hat/a.png", "photos/coat/b.png")
    write(tmp_path / "c", "photos/all/hat/a.png", "photos/all/coat/b.png")
    for name in ("b", "c"):
        ((reason, examples),) = found(list_folder(tmp_path / name)).items()
        assert reason.startswith("the only folder, with folders inside")
        assert examples == (1, ("photos",))


# Names


@pytest.mark.parametrize(
    "name",
    ["\u06a9\u0641\u0634\u200c\u0647\u0627", "a\u200db", "a\u00a0b", "\u200f\u0634", "été", "🧢"],
)
def test_any_name_without_control_characters_is_a_class(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"{name}/a.png", "hat/b.png")
    assert name in list_folder(tmp_path).labels


def test_one_class_in_two_compositions_or_with_spaces_is_merged_and_that_is_said(
    tmp_path: Path,
) -> None:
    write(tmp_path, "caf\u00e9/a.png", "cafe\u0301/b.png", "hat/c.png", "hat /d.png")
    listing = list_folder(tmp_path)
    assert listing.labels == ("café", "hat")
    assert len(listing.files) == 4
    ((reason, (count, _)),) = found(listing).items()
    assert (reason.endswith("treated as one class"), count) == (True, 2)


def test_classes_that_differ_in_case_stay_apart_and_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, "Hat/a.png", "hat/b.png")
    listing = list_folder(tmp_path)
    assert listing.labels == ("Hat", "hat")
    ((reason, _),) = found(listing).items()
    assert "upper and lower case" in reason


def test_a_name_that_is_no_text_is_shown_with_a_mark_in_findings(tmp_path: Path) -> None:
    write(tmp_path, "hat/a.png")
    os.mkdir(os.fsencode(tmp_path) + b"/cl\xffass")
    assert found(list_folder(tmp_path)) == {walk.EMPTY: (1, ("cl\ufffdass",))}


# What lies beside photos


LEFTOVERS = [
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/hat/a.png",
    "$RECYCLE.BIN/a.png",
    "#recycle/a.png",
    "lost+found/a.png",
    "System Volume Information/a.png",
    ".git/a.png",
    ".thumbnails/a.png",
    ".picasaoriginals/a.png",
    ".ipynb_checkpoints/a.png",
    "@Recycle/a.png",
    "Thumbs.db",
    "THUMBS.DB",
    "desktop.ini",
    ".DS_Store",
    "._a.png",
    ".hidden.png",
    "a.png.part",
    "a.tmp",
    "~$hat.png",
    "a.png_original",
    "a.png~",
    "a.png.bak",
]


@pytest.mark.parametrize("where", ["", "hat/", "hat/deep/"])
@pytest.mark.parametrize("key", LEFTOVERS)
def test_known_leftovers_are_skipped_and_said_wherever_they_lie(
    tmp_path: Path, key: str, where: str
) -> None:
    write(tmp_path, "hat/a.png", "hat/deep/b.png", "coat/c.png", where + key)
    listing = list_folder(tmp_path)
    assert list(claims(listing)) == ["coat/c.png", "hat/a.png", "hat/deep/b.png"]
    ((_, examples),) = found(listing).items()
    assert examples == (1, (where + key.split("/", maxsplit=1)[0],))


def test_leftovers_of_one_kind_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/@eaDir/a.png/x.jpg" for name in "abcde"), "a/a.png")
    assert found(list_folder(tmp_path)) == {
        "thumbnails of a Synology (@eaDir)": (5, ("a/@eaDir", "b/@eaDir", "c/@eaDir")),
        walk.EMPTY: (4, ("b", "c", "d")),
    }


def test_other_files_are_told_by_their_content_and_not_by_their_ending(tmp_path: Path) -> None:
    write(tmp_path, "hat/a.png", "hat/photo.txt", "hat/noending")
    for name in ("a.xmp", "labels.csv", "a.json", "notes.txt", "clip.mov", "README"):
        (tmp_path / "hat" / name).write_text("text")
    (tmp_path / "hat" / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    (tmp_path / "hat" / "a.json").write_text('{"label": "hat"}')
    (tmp_path / "hat" / "wrong.jpg").write_text("text")  # whoever decodes it says what it is
    listing = list_folder(tmp_path)
    assert list(claims(listing)) == ["hat/a.png", "hat/noending", "hat/photo.txt", "hat/wrong.jpg"]
    assert found(listing) == {
        NOT_AN_IMAGE: (4, ("hat/README", "hat/a.xmp", "hat/labels.csv")),
        f"{NOT_AN_IMAGE}: a JSON text": (1, ("hat/a.json",)),
        f"{NOT_AN_IMAGE}: a QuickTime video (MOV)": (1, ("hat/clip.mov",)),
    }


def test_every_format_that_is_read_is_found_by_its_ending_and_by_its_content(
    tmp_path: Path,
) -> None:
    endings = [ending for one in FORMATS for ending in one.endings]
    heic = (DATA / "phone.heic").read_bytes()
    for ending in endings:
        (tmp_path / f"a{ending}").write_bytes(b"")
    for one in FORMATS:
        data = heic if one is HEIC else encoded(picture(1), one.pillow_name)
        (tmp_path / f"{one.key}-without").write_bytes(data)
    keys = list(claims(list_folder(tmp_path)))
    assert sorted(keys) == sorted(
        [*(f"a{ending}" for ending in endings), *(f"{one.key}-without" for one in FORMATS)]
    )


def test_empty_class_folders_are_named_together(tmp_path: Path) -> None:
    write(tmp_path, "hat/a.png")
    for name in ("bag", "coat/deep/er", "dress", "shoe"):
        (tmp_path / name).mkdir(parents=True)
    assert found(list_folder(tmp_path)) == {walk.EMPTY: (4, ("bag", "coat", "dress"))}


# Links and what is no file


def test_links_are_followed_once_and_real_places_win(tmp_path: Path) -> None:
    root = write(tmp_path / "p", "hat/1.png", "coat/2.png")
    write(tmp_path, "nas/shoe/3.png", "nas/one.png")
    (root / "a-hat").symlink_to(root / "hat")
    (root / "again").symlink_to(root)
    (root / "hat" / "again").symlink_to(".")
    (root / "shoe").symlink_to(tmp_path / "nas" / "shoe")
    (root / "shoe-again").symlink_to(tmp_path / "nas" / "shoe")
    (root / "up").symlink_to(tmp_path)
    (root / "coat" / "copy.png").symlink_to("2.png")
    (root / "coat" / "one.png").symlink_to(tmp_path / "nas" / "one.png")
    (root / "hat" / "one.png").symlink_to(tmp_path / "nas" / "one.png")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    (root / "self.png").symlink_to("self.png")
    listing = list_folder(root)
    assert claims(listing) == {
        "coat/2.png": ("coat", None),
        "coat/one.png": ("coat", None),
        "hat/1.png": ("hat", None),
        "shoe/3.png": ("shoe", None),
    }
    said = found(listing)
    assert {reason: count for reason, (count, _) in said.items()} == {
        walk.AGAIN: 4,
        walk.CIRCLE: 3,
        walk.ABOVE: 1,
        walk.OUTSIDE: 2,
        walk.BROKEN: 1,
    }
    assert said[walk.AGAIN] == (4, ("a-hat", "coat/copy.png", "hat/one.png"))
    assert said[walk.OUTSIDE][0] == 2
    assert said[walk.BROKEN] == (1, ("gone",))
    assert listing.unread == ("gone",)


def test_pipes_and_sockets_are_named_and_nobody_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "hat/a.png")
    os.mkfifo(tmp_path / "hat" / "pipe.png")
    (tmp_path / "hat" / "link.png").symlink_to("pipe.png")
    monkeypatch.chdir(tmp_path / "hat")  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.png")
    listing = list_folder(tmp_path)
    assert list(claims(listing)) == ["hat/a.png"]
    assert found(listing) == {walk.SPECIAL: (3, ("hat/pipe.png", "hat/socket.png", "hat/link.png"))}


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "hat/a.png", "coat/b.png")
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may read everything
        if str(path).endswith("coat"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_folder(tmp_path)
    assert list(claims(listing)) == ["hat/a.png"]
    assert found(listing) == {walk.UNREADABLE: (1, ("coat",))}
    assert listing.unread == ("coat",)


# What is refused


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


def only_text(folder: Path) -> None:
    (folder / "hat").mkdir()
    (folder / "hat" / "a.txt").write_text("x")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder.rmdir(), "is not there; a folder of images or a .csv, .tsv or"),
        (a_file, "is not a folder; a folder of images or a .csv, .tsv or .parquet table"),
        (lambda folder: None, "there are no images in .*data"),
        (only_text, "there are no images in .*data"),
    ],
)
def test_what_is_no_folder_of_images_is_refused_with_a_sentence(
    tmp_path: Path, make: Callable[[Path], None], sentence: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(DatasetError, match=sentence):
        list_folder(folder)


def test_what_was_skipped_is_told_where_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path, "hat/@eaDir/a.png", "coat/._b.png")
    (tmp_path / "coat" / "notes.txt").write_text("x")
    with pytest.raises(DatasetError) as caught:
        list_folder(tmp_path)
    for part in ("@eaDir", "coat/._b.png", "coat/notes.txt", "a folder without pictures, 2 times"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("01_train", "02_test"), ("01_train", "02_test")),
        (("seg_train/seg_train", "seg_test/seg_test"), ("seg_test", "seg_train")),
        (("train-2", "test (1)"), ("test (1)", "train-2")),
        (("clothes.train", "valid", "hat"), ("clothes.train",)),
        (("train station", "hat"), ()),
        (("trainers", "testers"), ()),
    ],
)
def test_classes_that_may_be_parts_of_another_name_are_said(
    tmp_path: Path, names: tuple[str, ...], said: tuple[str, ...]
) -> None:
    listing = list_folder(write(tmp_path, *(f"{name}/a.png" for name in names)))
    assert listing.parts == frozenset()
    reasons = [reason for reason in found(listing) if "part's name in its own" in reason]
    assert tuple(example for reason in reasons for example in found(listing)[reason][1]) == said


def test_a_folder_called_like_a_part_beside_the_classes_of_a_part_is_said(tmp_path: Path) -> None:
    write(tmp_path, "train/train/hat/a.png", "train/coat/b.png", "test/coat/c.png")
    listing = list_folder(tmp_path)
    assert claims(listing)["train/train/hat/a.png"] == ("train", Part.TRAIN)
    reason = "a folder called like a part inside a part: treated as a class"
    assert found(listing) == {reason: (1, ("train/train",))}
