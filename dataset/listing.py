"""What a folder or a table says before a single image is opened: files, classes and parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from dataset.findings import Findings


class Part(IntEnum):
    """What an image is for; of two parts, the greater one has the better right to an image."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


_NOTHING: Final[dict[str, Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """One file, and what is claimed of it: 300 bytes, of which there may be a million."""

    place: str  # its path
    key: str  # distinct; relative to the source's folder, with "/", where it lies in it
    label: str | None = None  # NFC, without spaces around it
    part: Part | None = None  # ``None`` where the source names no parts
    group: str | None = None  # the thing that this and other photos show; ``None``: not said
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)  # other columns

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every file of a source; no real file is in it twice."""

    source: Path
    files: tuple[ListedFile, ...]  # of a folder sorted by key, of a table in its order
    findings: Findings = field(default_factory=Findings)
    unread: tuple[str, ...] = ()  # keys of folders and links that could not be looked into

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels, sorted."""
        return tuple(sorted({file.label for file in self.files if file.label is not None}))

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that the source names."""
        return frozenset(file.part for file in self.files if file.part is not None)
