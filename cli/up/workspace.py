"""The folder in which `lookalike up` keeps all that it makes of one source, and what it remembers.

``model/``, ``gallery/``, ``state.json`` (what was done, of which source), ``files.jsonl`` (the
files as they were when they were indexed) and ``lock``. Whatever is there was finished: each of
them appears whole or not at all, so that after any interruption the folder says what is left to do.
"""

import errno
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from dataset.errors import DatasetError
from files.durable import replace_file
from files.filesystem import NETWORK, mount_of
from files.locks import take_lock
from training.data.images.load import FASHION_MNIST

FORMAT_VERSION: Final = 1
STATE_NAME: Final = "state.json"
FILES_NAME: Final = "files.jsonl"
LOCK_NAME: Final = "lock"
READY_NAME: Final = "ready"  # in ``next``: it may be put in its place
ENDING: Final = "-lookalike"  # of the default, behind the source's name


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What has been done, as far as the folder's own files do not say it."""

    source: str  # absolute, links resolved; or ``fashion-mnist``
    group: str | None = None  # what says which photos show one thing, as in ``dataset.source``
    unmeasured: str | None = None  # why it cannot be measured, a sentence
    exported: str | None = None  # what came of the export, a sentence; None: not tried
    indexed: str | None = None  # fingerprint of the model by which all photos were indexed


class Workspace:
    """One folder of `lookalike up`, locked by one process at a time."""

    def __init__(self, folder: Path, source: str, *, home: Path | None = None) -> None:
        self.folder = folder
        self.source = source
        self.home = home or folder  # where all of it will lie when it is finished
        self._lock: int | None = None

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.folder / "model"

    @property
    def gallery(self) -> Path:
        """The gallery folder."""
        return self.folder / "gallery"

    @property
    def files(self) -> Path:
        """The list of files as they were when they were indexed."""
        return self.folder / FILES_NAME

    @property
    def next(self) -> "Workspace":
        """Where a new training prepares what will take the place of all that is here."""
        return Workspace(self.folder / "next", self.source, home=self.folder)

    @property
    def before(self) -> Path:
        """Where all that was here before the last new training is kept."""
        return self.folder / "before"

    def lock(self) -> None:
        """Make the folder where it is missing, and keep others out until this process ends.

        The lock stays with the process when it becomes another program.

        Raises:
            DatasetError: another `up` is at work here, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._lock = take_lock(self.folder / LOCK_NAME, wait=False)
        except BlockingIOError as error:
            raise DatasetError(
                f"another `lookalike up` is at work on {self.folder}: stop it first, or name "
                "another folder with --out"
            ) from error
        except OSError as error:
            raise DatasetError(self._unwritable(error)) from error
        os.set_inheritable(self._lock, True)

    def _unwritable(self, error: OSError) -> str:
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            return f"{self.folder} cannot be made: a file is in the way; name another with --out"
        return (
            f"nothing can be written to {self.folder}: {error.strerror}; say where the model and "
            f"the gallery may be kept, for example with --out {self.folder.name}"
        )

    def read_state(self) -> State:
        """Return what was done; of a new folder, nothing.

        Raises:
            DatasetError: it is the folder of another source, of another version, or damaged.
        """
        path = self.folder / STATE_NAME
        try:
            fields = json.loads(path.read_bytes())
            version = fields.pop("format_version")
            if version != FORMAT_VERSION:
                raise DatasetError(
                    f"{path} was written by another version of this program (format {version!r}, "
                    f"this one has {FORMAT_VERSION}): name another folder with --out"
                )
            state = State(**fields)
        except FileNotFoundError:
            return self._initial_state()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"{path} is damaged: not the JSON we wrote; remove it, and what is finished in "
                f"{self.folder} will be found again"
            ) from error
        except NotADirectoryError as error:
            raise DatasetError(self._unwritable(error)) from error
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
        if state.source != self.source:
            raise DatasetError(
                f"{self.folder} holds what was made of {state.source}, not of {self.source}: name "
                "that again, or another folder with --out"
            )
        return state

    def _initial_state(self) -> State:
        """Return the state of a folder that has none: a new one, or a demo's of up to 0.5.0."""
        state = State(source=self.source)
        mark = self.folder / "gallery.complete"
        if not (self.model.exists() or self.gallery.exists()):
            return state
        if self.source == FASHION_MNIST and mark.exists():
            from vision.model.manifest import read_manifest  # noqa: PLC0415 - a folder of before

            return replace(state, indexed=read_manifest(self.model).fingerprint)
        return state

    def resolve_group(self, asked: str | None, *, again: bool) -> str | None:
        """Return by what photos of one thing are told: what was asked for, or as the last time.

        Args:
            asked: as in ``dataset.source``; None: nothing.
            again: whether a new model is to be made in any case.

        Raises:
            DatasetError: as ``read_state``; or the model has learnt from photos grouped otherwise.
        """
        self.read_state()
        latest = self.next if (self.next.folder / STATE_NAME).exists() else self
        before = latest.read_state().group
        if asked is None:
            return before
        known = (latest.folder / STATE_NAME).exists()
        if known and asked != before and latest.model.exists() and not again:
            made = "without --group" if before is None else f"with --group {before!r}"
            raise DatasetError(
                f"{self.folder} was made {made}, and --group {asked!r} makes another model: add "
                "--retrain, or name another folder with --out"
            )
        return asked

    def write_state(self, state: State) -> None:
        """Remember ``state``, durably.

        Raises:
            OSError: it cannot be written; what was remembered before still is.
        """
        document: dict[str, Any] = {"format_version": FORMAT_VERSION, **asdict(state)}
        replace_file(self.folder / STATE_NAME, json.dumps(document, indent=1).encode())

    def swap(self) -> None:
        """Put a new model and gallery in the place of those of before, which are kept.

        Interrupted between two of its steps, it goes on when it is called again.

        Raises:
            OSError: something cannot be moved.
        """
        new = self.next.folder
        if not (new / READY_NAME).exists():
            return
        for name in ("gallery", "model", FILES_NAME, STATE_NAME):
            if (new / name).exists():
                if (self.folder / name).exists():
                    self.before.mkdir(exist_ok=True)
                    (self.folder / name).replace(self.before / name)
                (new / name).replace(self.folder / name)
        shutil.rmtree(new)

    def mark_ready(self) -> None:
        """Mark all here as finished: it may take the place of what was before.

        Raises:
            OSError: it cannot be written.
        """
        shutil.rmtree(self.home / "before", ignore_errors=True)
        replace_file(self.folder / READY_NAME, b"")

    @classmethod
    def of(cls, source: str, out: Path | None) -> Self:
        """Return the workspace of a source: the folder that was named, or the one beside it.

        Raises:
            DatasetError: none was named, and there is no good one; or it lies inside the source.
        """
        if source == FASHION_MNIST:
            return cls(out or Path(f"{FASHION_MNIST}{ENDING}"), source)
        place = Path(source)
        folder = out if out is not None else cls._beside(place)
        if place.is_dir() and folder.resolve().is_relative_to(place):
            raise DatasetError(
                f"{folder} lies inside {place}, among the photos: name a folder outside with --out"
            )
        return cls(folder, source)

    @staticmethod
    def _beside(place: Path) -> Path:
        name = place.stem if place.is_file() else place.name
        if not name:
            raise DatasetError(f"say where to keep what is made of {place}, with --out")
        if (kind := mount_of(place.parent).kind) in NETWORK:
            raise DatasetError(
                f"{place.parent} is on another machine ({kind}), where a gallery's locks do not "
                f"hold: keep it on a disk of this one, for example with --out {name}{ENDING}"
            )
        folder = place.with_name(f"{name}{ENDING}")
        try:
            return folder.relative_to(Path.cwd())  # as a person would write it
        except (ValueError, OSError):
            return folder
