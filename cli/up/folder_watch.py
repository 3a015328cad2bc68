"""A folder that is watched while it is served: new photos appear in search within seconds.

A change event of the system is only a hint that it is time to look: what is new is found by
comparing the folder with what was indexed, as at every start. So nothing is lost when hints are,
and where there are none, as on a network share, the folder is looked at every few seconds.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cli.support.console import print_info
from cli.up.gallery_sync import GallerySync
from cli.up.inventory import Inventory, Row
from cli.up.workspace import Workspace
from dataset.errors import DatasetError
from dataset.listing import ListedFile
from dataset.source import list_source
from dataset.tables.table import is_table
from files.filesystem import NETWORK, mount_of
from index.errors import VectorIndexError
from vision.errors import VisionError

SETTLE_S: Final = 1.0  # between two looks; a file that both found the same is complete
POLL_S: Final = 2.0  # between two looks where no hints come
LOOK_S: Final = 60.0  # at least so often a look, whatever hints came
MOST_SHARE: Final = 0.2  # of the time, to be spent on looking
STEP_MS: Final = 500  # between two questions whether to stop
AGAIN_S: Final = 5.0  # after something went wrong


def watch_folder(
    *, source: str, folder: str, prune: bool, device: str, stopping: threading.Event
) -> None:
    """Take photos in as they come, until ``stopping`` is set; nothing that goes wrong ends it.

    Args:
        source: the folder or table, absolute.
        folder: of the workspace.
        prune: take photos that are gone out of the gallery.
        device: of the network.
        stopping: ends the watching.
    """
    workspace = Workspace(Path(folder), source)
    watcher = Watcher(
        workspace, GallerySync(workspace, workspace.read_state(), device=device), prune=prune
    )
    last_message = ""
    for _ in scan_times(Path(source), watcher, stopping):
        try:
            watcher.scan()
            last_message = ""
        except (DatasetError, VectorIndexError, VisionError, OSError) as error:
            message = f"cannot take in what is new, and will try again: {error}"
            if message != last_message:
                print_info(message)
            last_message = message
            stopping.wait(AGAIN_S)


class Watcher:
    """Compares a source with what was indexed, and indexes what has settled since.

    A new or changed file waits until two looks found it the same: it may still be being written.
    What is gone waits likewise, since programs save by deleting and renaming.
    """

    def __init__(self, workspace: Workspace, gallery_sync: GallerySync, *, prune: bool) -> None:
        self.waiting = False  # something has not settled yet
        self.took_s = 0.0  # the last look
        self._source = Path(workspace.source)
        self._gallery_sync = gallery_sync
        self._prune = prune
        self._seen: dict[str, Row | None] = {}  # files that wait, as the last look found them
        self._gone: set[str] = set()  # ids that the last look missed

    def scan(self) -> None:
        """Compare once, and index what has not changed since the last scan.

        Raises:
            DatasetError: the source cannot be looked at now; nothing is taken out because of that.
            VectorIndexError, VisionError, OSError: the next look tries again.
        """
        started = time.monotonic()
        listing = list_source(self._source, group=self._gallery_sync.state.group)
        now = Inventory.of(listing)
        news = self._gallery_sync.changed_files(listing, now)
        settled = [file for file in news if self._has_settled(file, now)]
        gone = self._gallery_sync.stale_ids(listing) if self._prune else set()
        pruned = bool(gone) and gone <= self._gone and not listing.unread
        self._seen = {file.key: now.rows.get(file.key) for file in news}
        self._gone = gone
        self.took_s = time.monotonic() - started
        self.waiting = len(settled) < len(news) or (bool(gone) and not pruned)
        if settled or pruned:
            result = self._gallery_sync.update(listing, now, settled, prune=pruned)
            if result.has_changes:
                print_info(f"{result.in_words()}: {result.count:,} in the gallery")
            self._seen = {}
            self._gone = set()

    def _has_settled(self, file: ListedFile, now: Inventory) -> bool:
        row = now.rows.get(file.key)
        return row is not None and row == self._seen.get(file.key)


def scan_times(source: Path, watcher: Watcher, stopping: threading.Event) -> Iterator[None]:
    """Yield when it is time to look: after changes, while something waits, and now and then."""
    events = _change_events(source, stopping) if _has_change_events(source) else _poll(stopping)
    yield
    looked = time.monotonic()
    for changed in events:
        since = time.monotonic() - looked
        due = SETTLE_S if watcher.waiting else LOOK_S
        pause = watcher.took_s / MOST_SHARE  # of a million files a look takes a while
        if changed and since < max(pause, SETTLE_S):
            watcher.waiting = True  # soon, and only once for a storm of changes
        elif (changed or since >= due) and since >= pause:
            yield
            looked = time.monotonic()


def _has_change_events(source: Path) -> bool:
    """Return whether the system tells of changes: not those of a network, nor a table's files."""
    return not is_table(source) and mount_of(source).kind not in NETWORK


def _change_events(source: Path, stopping: threading.Event) -> Iterator[bool]:
    """Yield True after changes below ``source``, and False now and then.

    Where the system has no more to tell, since the folder is gone or its watches are used up, it is
    time alone that says when to look; after a while it is asked again.
    """
    from watchfiles import watch as changes  # noqa: PLC0415 - only where it is needed

    while not stopping.is_set():
        unwatched = True  # changes until now were missed
        try:
            for events in changes(
                source,
                watch_filter=None,
                stop_event=stopping,
                debounce=STEP_MS,
                step=STEP_MS // 5,
                rust_timeout=STEP_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                yield bool(events) or unwatched
                unwatched = False
                if not source.is_dir():
                    break
        except (OSError, RuntimeError):
            pass
        for _ in range(int(LOOK_S / POLL_S)):
            if stopping.wait(POLL_S):
                return
            yield True
            if source.is_dir():
                break


def _poll(stopping: threading.Event) -> Iterator[bool]:
    """Yield True every few seconds."""
    while not stopping.wait(POLL_S):
        yield True
