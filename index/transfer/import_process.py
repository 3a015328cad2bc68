"""An import in a process of its own: neither its work nor its memory is the server's.

The module reports how far it is, and at the end what it made or why not (``files.child_process``).
Nothing of the gallery is loaded: it is only written to.
"""

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dataset.text import printable
from files.child_process import ChildProcess, Message, send_message, serve_parent
from index import errors
from index.errors import GalleryFolderError, ImportEndedError, SourceError, VectorIndexError
from index.items.item import NewItem, PutResult
from index.operations.build_report import BuildReport
from index.search.vectors import Parts
from index.store.store import Store
from index.transfer.import_vectors import store_vectors
from index.transfer.vector_source import open_vectors

# Whoever serves goes first, but not by far: writers wait for the transaction of a thousand items.
NICENESS: Final = 5
BLOCK_BYTES: Final = 2**20  # of a table whose lines are counted
MAX_REFUSALS: Final = 100  # that are listed; the others are counted
SHOWN_CHARS: Final = 256  # of what came as an id


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is to be imported: names within one folder, as ``open_vectors`` takes them."""

    folder: Path
    source: str
    ids: str | None = None
    vectors: str | None = None
    normalize: bool = False
    parts: Parts | None = None  # of the model's vectors, where they have two


class ImportProcess(ChildProcess):
    """One run of the process. Stopped, it leaves what it stored before."""

    def __init__(self, gallery: Path, request: ImportRequest) -> None:
        """Start nothing yet."""
        options = {**asdict(request), "gallery": str(gallery.absolute())}
        folder = options.pop("folder")
        super().__init__("index.transfer.import_process", json.dumps(options), folder=folder)
        self._source = request.source

    def run(self, on_progress: Callable[[float], None]) -> dict[str, Any]:
        """Run it to its end and return its report as JSON, as the API describes it.

        Args:
            on_progress: called with the share that was dealt with, in [0, 1].

        Raises:
            SourceError: it cannot be read, or holds vectors of another model.
            DiskFullError, StorageError: the gallery cannot be written to.
            ImportEndedError: the process ended before it had.
            In every case what was stored before that stays, in parts of 1,000 items.
        """

        def on_message(message: Message) -> None:
            if "share" in message:
                on_progress(message["share"])

        try:
            last, status = self.listen(on_message)
        except OSError as error:
            raise ImportEndedError(f"{self._source} could not be imported: {error}") from error
        if "made" in last:
            made: dict[str, Any] = last["made"]
            return made
        if "error" in last:
            raise getattr(errors, last["kind"])(last["error"])
        raise ImportEndedError(
            f"the process that imported {self._source} ended with status {status}; what it had "
            "stored stays, and the same import goes on where it was"
        )


def main() -> int:
    """Import what the command line asks for, for as long as the parent lives."""
    return serve_parent(_import, niceness=NICENESS)


def _import(options: str) -> Message:
    try:
        return {"made": _report(_store(**json.loads(options)))}
    except GalleryFolderError as error:  # of the source: the gallery itself is being served
        return {"error": str(error), "kind": SourceError.__name__}
    except VectorIndexError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except (OSError, MemoryError) as error:
        return {"error": str(error) or type(error).__name__, "kind": ImportEndedError.__name__}


def _store(
    gallery: str,
    source: str,
    ids: str | None,
    vectors: str | None,
    *,
    normalize: bool,
    parts: tuple[int, float] | None,
) -> BuildReport:
    opened = open_vectors(
        Path(source),
        ids=None if ids is None else Path(ids),
        vectors=None if vectors is None else Path(vectors),
    )
    total = opened.count if opened.count is not None else _lines(Path(source))
    done = 0

    def on_progress(more: int) -> None:
        nonlocal done
        done += more
        send_message({"share": min(done / total, 1.0)})

    with closing(Store.open(Path(gallery))) as store:
        return store_vectors(
            _ImportTarget(store),
            opened,
            normalize=normalize,
            on_progress=on_progress,
            parts=None if parts is None else Parts(*parts),
        )


class _ImportTarget:
    """A gallery that items are stored in, without what searches need."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.binding = store.binding
        self.folder = Path(store.folder.name)  # as sentences may show it

    @property
    def count(self) -> int:
        return self._store.count()

    def put(self, items: Sequence[NewItem]) -> list[PutResult]:
        if not items:
            return []
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        return self._store.put(items, upsert=True, created=created)


def _lines(path: Path) -> int:
    """Return about how many rows a table of text has: at least 1, as what has ended has lines."""
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
        return max(1, sum(block.count(b"\n") for block in blocks))


def _report(report: BuildReport) -> dict[str, Any]:
    """Return what came of an import as JSON, short enough for a record of it."""
    pairs = zip(report.refused, report.refused_rows, strict=True)
    return {
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "refused": len(report.refused),
        "refusals": [
            {"row": row, "id": printable(item_id)[:SHOWN_CHARS], "reason": printable(reason)}
            for (item_id, reason), row in itertools.islice(pairs, MAX_REFUSALS)
        ],
        "left_as_stored": report.left_as_stored,
        "count": report.count,
        "seconds": round(report.seconds, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
