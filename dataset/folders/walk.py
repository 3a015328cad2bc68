"""A folder in, every picture below it out, each real file once, with a word on all the rest.

Links are followed wherever they lead, after everything that lies in the folder itself has been
read, and never to a folder that has been read already: so real places win over links, and no loop
is walked twice.
"""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dataset.errors import DatasetError
from dataset.findings import Findings
from dataset.folders.file_content import NOT_AN_IMAGE, describe_non_image
from dataset.folders.junk_files import describe_junk

UNREADABLE: Final = "a folder that cannot be read"
BROKEN: Final = "a broken link"
CIRCLE: Final = "a link that leads in a circle: not followed"
AGAIN: Final = "a link to what is read already: taken once"
ABOVE: Final = "a link to a folder that this one lies in: not followed"
OUTSIDE: Final = "a link that leads out of the folder: followed"
SPECIAL: Final = "neither a file nor a folder (a pipe, a socket or a device)"
EMPTY: Final = "a folder without pictures"


@dataclass(slots=True)
class Tree:
    """What lies below a folder; keys are relative, with ``/``."""

    files: dict[str, str] = field(default_factory=dict)  # paths by key, sorted folder by folder
    unread: list[str] = field(default_factory=list)  # keys of what could not be looked into


def walk(root: Path, findings: Findings) -> Tree:
    """Return the pictures below ``root``, and say in ``findings`` what else is there.

    Costs a look at each folder, and at the first bytes of files without a picture's ending.

    Raises:
        DatasetError: ``root`` is not there, is no folder, or cannot be read.
    """
    if not root.is_dir():
        there = root.exists()
        problem = f"is not a folder{_in_place_of_a_folder(root)}" if there else "is not there"
        raise DatasetError(
            f"{root} {problem}; a folder of images or a .csv, .tsv or .parquet table was expected"
        )
    walker = _Walker(root, findings)
    walker.read()
    tree = walker.tree
    if "" in tree.unread:
        raise DatasetError(f"the folder {root} cannot be read")
    tree.files = dict(sorted(tree.files.items(), key=lambda file: file[0].split("/")))
    _report_empty(walker.folders, tree, findings)
    return tree


def _in_place_of_a_folder(path: Path) -> str:
    """Return what is there, where a person knows it by a name."""
    other = describe_non_image(path) if path.is_file() else None
    _, _, kind = (other or "").partition(f"{NOT_AN_IMAGE}: ")
    return f" but {kind}" if kind else ""


class _Walker:
    def __init__(self, root: Path, findings: Findings) -> None:
        self.tree = Tree()
        self.folders: list[str] = []  # keys
        self._root = root
        self._real_root = os.path.realpath(root)
        self._findings = findings
        self._real_folders: set[str] = set()  # read, or being read
        self._linked_files: set[str] = set()
        self._links: list[tuple[str, str]] = []  # key and path

    def read(self) -> None:
        self._enter("", str(self._root), self._real_root)
        while self._links:
            links, self._links = sorted(self._links), []
            for key, path in links:
                self._follow(key, path)

    def _enter(self, key: str, path: str, real: str) -> None:
        stack = [(key, path, real)]
        while stack:
            key, path, real = stack.pop()
            if real in self._real_folders:
                self._findings.add(AGAIN, key)
                continue
            self._real_folders.add(real)
            self.folders.append(key)
            try:
                with os.scandir(path) as entries:
                    children = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                self._findings.add(UNREADABLE, key)
                self.tree.unread.append(key)
                continue
            inner: list[tuple[str, str, str]] = []
            for child in children:
                child_key = f"{key}/{child.name}" if key else child.name
                if child.is_symlink():
                    self._links.append((child_key, child.path))
                elif child.is_dir(follow_symlinks=False):
                    if not self._skip_junk(child_key, is_folder=True):
                        inner.append((child_key, child.path, os.path.join(real, child.name)))
                elif child.is_file(follow_symlinks=False):
                    self._take_file(child_key, child.path)
                else:
                    self._findings.add(SPECIAL, child_key)
            stack += reversed(inner)

    def _follow(self, key: str, path: str) -> None:
        try:
            real = os.path.realpath(path, strict=True)
            mode = os.stat(real).st_mode
        except OSError as error:
            if self._skip_junk(key, is_folder=False):
                return
            if error.errno == errno.ELOOP:
                self._findings.add(CIRCLE, key)
            else:
                self._findings.add(BROKEN, key)
                self.tree.unread.append(key)
            return
        if stat.S_ISDIR(mode):
            if not self._skip_junk(key, is_folder=True):
                self._follow_folder(key, path, real)
        elif not stat.S_ISREG(mode):
            self._findings.add(SPECIAL, key)
        elif real in self._linked_files or self._is_taken(real):
            self._findings.add(AGAIN, key)
        elif self._take_file(key, path):
            self._linked_files.add(real)
            self._report_outside(key, real)

    def _follow_folder(self, key: str, path: str, real: str) -> None:
        if real != self._real_root and _is_inside(real, self._real_root):
            self._findings.add(ABOVE, key)
        elif _is_inside(real, os.path.realpath(os.path.dirname(path))):
            self._findings.add(CIRCLE, key)
        elif real in self._real_folders:
            self._findings.add(AGAIN, key)
        else:
            self._report_outside(key, real)
            self._enter(key, path, real)

    def _report_outside(self, key: str, real: str) -> None:
        if not _is_inside(self._real_root, real):
            self._findings.add(OUTSIDE, f"{key} → {real}")

    def _is_taken(self, real: str) -> bool:
        """Whether a regular file was met, and not skipped, where it really lies."""
        return os.path.dirname(real) in self._real_folders and not describe_junk(
            os.path.basename(real), is_folder=False
        )

    def _take_file(self, key: str, path: str) -> bool:
        if self._skip_junk(key, is_folder=False):
            return False
        if (other := describe_non_image(Path(path))) is not None:
            self._findings.add(other, key)
            return False
        self.tree.files[key] = path
        return True

    def _skip_junk(self, key: str, *, is_folder: bool) -> bool:
        reason = describe_junk(key.rpartition("/")[2], is_folder=is_folder)
        if reason is not None:
            self._findings.add(reason, key)
        return reason is not None


def _report_empty(folders: list[str], tree: Tree, findings: Findings) -> None:
    """Say which folders have no picture in or below them; of nested ones, the highest."""
    full = {""}
    for key in tree.files:
        while (key := key.rpartition("/")[0]) not in full:
            full.add(key)
    unread = set(tree.unread)
    for key in sorted(folders):
        parent = key.rpartition("/")[0]
        if key not in full and key not in unread and parent in full:
            findings.add(EMPTY, key)


def _is_inside(outer: str, inner: str) -> bool:
    """Whether the real path ``inner`` is ``outer``, or lies below it."""
    return Path(inner).is_relative_to(outer)
