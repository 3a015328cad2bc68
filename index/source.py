"""A folder of images as entries to store: paths in, ids, labels and bytes out."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from dataset.text import CONTROL
from index.errors import SourceError
from index.items import MAX_LABEL_CHARS
from vision.image import DEFAULT_LIMITS

MAX_ID_CHARS: Final = 128
HASH_DIGITS: Final = 12  # of the path's SHA-256, where the path itself cannot be the id
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")  # the id's alphabet, without the separator


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image to store, not yet decoded."""

    id: str
    data: bytes  # as encoded in the file
    label: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None  # a sentence, when the bytes could not be read


@dataclass(frozen=True, slots=True)
class FolderEntries:
    """The images of a folder, read one by one as they are asked for; may be walked again."""

    root: Path
    paths: tuple[str, ...]  # relative, with "/", sorted

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Entry]:
        for path in self.paths:
            parts = PurePosixPath(path).parts
            shown_path = _plain(path)
            data, problem = _read(self.root / path)
            yield Entry(
                id=id_of_path(path),
                data=data,
                label=_plain(parts[0])[:MAX_LABEL_CHARS] if len(parts) > 1 else None,
                metadata={"path": shown_path},
                problem=problem,
            )


def folder_entries(root: Path) -> FolderEntries:
    """Return the files below ``root``, in the order of their paths.

    The first folder below ``root`` is the label; files directly in ``root`` have none. Hidden files
    and folders are left out, and links that lead out of ``root``; linked folders are not entered.
    Names are no proof of an image: whatever is none is refused when it is decoded.

    Raises:
        SourceError: no such folder, it cannot be read, or there is no file in it.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder of images: there is no such folder")
    try:
        paths = tuple(sorted(_walk(root)))
    except OSError as error:
        raise SourceError(f"cannot read the folder {root}: {error.strerror}") from error
    if not paths:
        raise SourceError(f"there are no images in {root}")
    return FolderEntries(root, paths)


def id_of_path(path: str) -> str:
    """Return the id of a relative path: ``:`` for ``/``, and a hash where that is not enough.

    >>> id_of_path("coat/001.png")
    'coat:001.png'
    """
    name = ":".join(_NOT_IN_A_NAME.sub("_", part) for part in path.split("/"))
    if name.replace(":", "/") == path and len(name) <= MAX_ID_CHARS:
        return name
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:HASH_DIGITS]
    return f"{name[: MAX_ID_CHARS - HASH_DIGITS - 1]}-{digest}"


def _walk(root: Path) -> Iterator[str]:
    inside = root.resolve()

    def stop(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or (
                path.is_symlink() and not path.resolve().is_relative_to(inside)
            ):
                continue
            yield path.relative_to(root).as_posix()


def _read(path: Path) -> tuple[bytes, str | None]:
    """Return the file's bytes, a little more than the limit at most, or what was in the way."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return b"", "not a regular file"
        with path.open("rb") as file:
            return file.read(DEFAULT_LIMITS.max_bytes + 1), None
    except OSError as error:
        return b"", f"the file cannot be read: {error.strerror}"


def _plain(text: str) -> str:
    """Return ``text`` with U+FFFD for control characters and bytes that are not UTF-8."""
    return CONTROL.sub("\ufffd", text)
