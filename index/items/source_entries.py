"""Listed files as entries to store: a listing in, ids, labels, metadata and files out."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dataset.findings import Findings
from dataset.listing import ListedFile, Listing
from dataset.text import CONTROL, printable
from index.errors import InvalidMetadataError
from index.items.item import encode_metadata

MAX_ID_CHARS: Final = 128
HASH_DIGITS: Final = 12  # of the path's SHA-256, where the path itself cannot be the id
PATH: Final = "path"  # members of an item's metadata
SPLIT: Final = "split"
GROUP: Final = "group"
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")  # the id's alphabet, without the separator


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEntry:
    """One image to store, neither read nor decoded."""

    id: str
    data: bytes | Path  # as encoded, or the file that holds it
    label: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageEntries:
    """The images of a listing, one by one as they are asked for; may be walked again."""

    files: tuple[ListedFile, ...]
    metadata: dict[str, dict[str, Any]]  # by key, of the files of which a table says more

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[ImageEntry]:
        for file in self.files:
            yield ImageEntry(
                id=id_of_path(file.key),
                data=file.path,
                label=None if file.label is None else printable(file.label),
                metadata=self.metadata.get(file.key) or _place(file),
            )


def image_entries(listing: Listing) -> ImageEntries:
    """Return the files of ``listing`` as entries; what an item cannot hold is said in its findings.

    Names are no proof of an image: whatever is none is refused when it is decoded.

    Args:
        listing: its labels become the items', its parts and a table's columns their metadata.
    """
    for label in listing.labels:
        if CONTROL.search(label):
            listing.findings.add("a class name that is no plain text: shown with a mark", label)
    metadata = {
        file.key: _fitted(file, listing.findings) for file in listing.files if file.metadata
    }
    return ImageEntries(listing.files, metadata)


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


def _place(file: ListedFile) -> dict[str, Any]:
    place = {PATH: printable(file.key)}
    if file.part is not None:
        place[SPLIT] = file.part.name.lower()
    if file.group is not None:
        place[GROUP] = printable(file.group)
    return place


def _fitted(file: ListedFile, findings: Findings) -> dict[str, Any]:
    """Return the metadata of a file, without the largest members where all are too much."""
    metadata = {**file.metadata, **_place(file)}
    others = sorted(file.metadata, key=lambda name: len(repr(file.metadata[name])))
    while True:
        try:
            encode_metadata(metadata)
        except InvalidMetadataError as error:
            if not others:
                raise
            name = others.pop()
            if name not in _place(file):
                del metadata[name]
                findings.add(
                    f"more metadata than an item holds ({error}): left out", f"{file.key}: {name}"
                )
        else:
            return metadata
