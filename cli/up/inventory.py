"""The files of a source as the file system describes them: what was added, changed or taken away.

A file that has the size and the times that it had when it was indexed is not read again. Of one
that was changed in the very moment it was listed this cannot be known: it counts as changed.
"""

import hashlib
import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from dataset.listing import ListedFile, Listing
from files.durable import replace_file

COARSEST_S: Final = 2.0  # steps in which some file systems count time
DIGEST_DIGITS: Final = 16


class Row(NamedTuple):
    """One file: where all but the last are equal, so is what would be indexed."""

    size: int  # bytes
    modified_ns: int
    changed_ns: int  # also when it was renamed, or another one got its place
    declared: str  # a digest of label, part, metadata and group
    refused_by: str = ""  # the version of this program that found no picture in it

    def is_as_in(self, now: "Row | None", program: str) -> bool:
        """Return whether the file need not be read again by this version of the program."""
        return now is not None and now[:4] == self[:4] and self.refused_by in ("", program)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The files of a source at one moment, by their keys."""

    rows: Mapping[str, Row]

    @classmethod
    def of(cls, listing: Listing) -> Self:
        """Return the files of ``listing`` that are there, at the cost of a ``stat`` each."""
        rows = {file.key: row for file in listing.files if (row := row_of(file)) is not None}
        return cls(rows)

    @property
    def settled(self) -> "Inventory":
        """Without the files that have just changed.

        They may change again within the same tick of the file system's clock.
        """
        latest_ns = time.time_ns() - int(COARSEST_S * 1e9)
        return Inventory(
            {
                key: row
                for key, row in self.rows.items()
                if max(row.modified_ns, row.changed_ns) < latest_ns
            }
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what ``write`` wrote; where it is missing or damaged, an empty inventory."""
        try:
            with path.open(encoding="ascii") as lines:
                rows = {key: Row(*values) for key, *values in map(json.loads, lines)}
        except (OSError, ValueError, TypeError):
            return cls({})
        return cls(rows)

    def write(self, path: Path) -> None:
        """Write the inventory, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        lines = (json.dumps([key, *row]) for key, row in self.rows.items())
        replace_file(path, "".join(f"{line}\n" for line in lines).encode())

    def after(
        self,
        now: "Inventory",
        read: Collection[str],
        *,
        refused: Collection[str],
        unread: Collection[str],
        program: str,
    ) -> "Inventory":
        """Return what is known after an indexing.

        Args:
            now: the inventory, as of before the files were read.
            read: keys of the files that were to be read; the others are as they were, or wait.
            refused: keys of those in which there is no picture.
            unread: keys of those that could not be read: they will be tried again.
            program: the version of this program.
        """
        rows = {key: row for key, row in self.rows.items() if key in now.rows and key not in read}
        for key in now.rows.keys() & set(read) - set(unread):
            rows[key] = now.rows[key]._replace(refused_by=program if key in refused else "")
        return Inventory(rows)

    def changed(self, now: "Inventory", listing: Listing, program: str) -> list[ListedFile]:
        """Return the files of ``listing`` that are not, in ``now``, what they were in this one."""
        return [
            file
            for file in listing.files
            if (row := self.rows.get(file.key)) is None
            or not row.is_as_in(now.rows.get(file.key), program)
        ]

    @property
    def refused(self) -> int:
        """How many of the files hold no picture that can be read."""
        return sum(bool(row.refused_by) for row in self.rows.values())


def row_of(file: ListedFile) -> Row | None:
    """Return how a file is at this moment; None where it is gone or cannot be looked at."""
    try:
        facts = os.stat(file.path)
    except OSError:
        return None
    declared = [file.label, file.part, file.metadata, *([file.group] if file.group else [])]
    text = json.dumps(declared, default=str, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=DIGEST_DIGITS // 2).hexdigest()
    return Row(facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, digest)
