import os
from pathlib import Path

import pytest

from index.errors import SourceError
from index.items import check_id
from index.source import folder_entries, id_of_path


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def test_class_folders_give_labels_and_paths_give_ids(tmp_path: Path) -> None:
    write(tmp_path, "shirt/b.png", "coat/a.png", "coat/deep/c.png", "flat.png")

    entries = list(folder_entries(tmp_path))

    assert [(entry.id, entry.label, entry.metadata["path"]) for entry in entries] == [
        ("coat:a.png", "coat", "coat/a.png"),
        ("coat:deep:c.png", "coat", "coat/deep/c.png"),
        ("flat.png", None, "flat.png"),
        ("shirt:b.png", "shirt", "shirt/b.png"),
    ]
    assert entries[0].data == b"coat/a.png"
    assert len(folder_entries(tmp_path)) == 4


def test_hidden_files_and_links_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "a.png", ".hidden.png", ".git/b.png")
    write(tmp_path, "outside/secret.png")
    (root / "link.png").symlink_to(tmp_path / "outside" / "secret.png")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "inside.png").symlink_to(root / "a.png")

    assert folder_entries(root).paths == ("a.png", "inside.png")


def test_paths_that_are_no_ids_get_a_hash_and_stay_apart() -> None:
    paths = ["a/b.png", "a:b.png", "a b.png", "a_b.png", "a?b.png", "é.png", "x" * 200, "x" * 201]

    ids = [id_of_path(path) for path in paths]

    assert len(set(ids)) == len(paths)
    assert ids == [id_of_path(path) for path in paths]
    for item_id in ids:
        check_id(item_id)


def test_what_cannot_be_read_becomes_a_problem_and_not_an_end(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    os.mkfifo(tmp_path / "pipe")
    entries = folder_entries(tmp_path)
    (tmp_path / "a.png").unlink()

    a, b, pipe = entries

    assert a.problem is not None
    assert "cannot be read" in a.problem
    assert b.problem is None
    assert pipe.problem == "not a regular file"


def test_names_with_bytes_that_are_not_text_are_shown_with_a_mark(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/cl\xffass"
    os.mkdir(folder)
    with open(folder + b"/\n.png", "wb"):
        pass

    (entry,) = folder_entries(tmp_path)

    assert entry.label == "cl\ufffdass"
    assert entry.metadata == {"path": "cl\ufffdass/\ufffd.png"}
    check_id(entry.id)


def test_a_missing_and_an_empty_folder_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such folder"):
        folder_entries(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="there are no images in"):
        folder_entries(tmp_path)
