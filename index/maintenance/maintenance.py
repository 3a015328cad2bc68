"""Keeps a gallery's search index up with what is stored, and looks for damage.

In the background it adopts generations that other processes built, and has one built when much
was stored or deleted since the last.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from index.errors import GenerationError, ReadOnlyError, RebuildBusyError, VectorIndexError
from index.items.item import GalleryInfo
from index.maintenance.compaction import Compaction
from index.maintenance.rebuild_process import RebuildProcess
from index.maintenance.verify import snapshot_problems, store_problems
from index.search.index_spec import EXACT, OUTDATED
from index.search.policy import SearchPolicy
from index.snapshot.follower import Follower
from index.snapshot.segments.generations import Generations
from index.snapshot.snapshot import Snapshot
from index.store.store import Store
from index.store.transaction import last_seq
from index.store.vacuum import folder_bytes

VERIFY_ATTEMPTS: Final = 50  # to find a moment between two writes
logger = logging.getLogger("lookalike.index")


def is_rebuild_due(snapshot: Snapshot, policy: SearchPolicy) -> bool:
    """Whether a new ANN index would pay: many rows are scanned, or many were deleted."""
    if snapshot.immutable is None:
        return snapshot.count >= policy.min_indexed_rows
    rows, tombstones = len(snapshot.immutable.segment), snapshot.immutable.tombstones
    return (
        snapshot.immutable.segment.spec == OUTDATED
        or snapshot.delta.live_count > max(policy.pending_rows, int(policy.pending_share * rows))
        or tombstones > max(policy.pending_rows, int(policy.tombstone_share * rows))
    )


class Maintenance:
    """What is done to a gallery as a whole, by hand or in the background."""

    def __init__(
        self, store: Store, generations: Generations, follower: Follower, policy: SearchPolicy
    ) -> None:
        self._store = store
        self._generations = generations
        self._follower = follower
        self._policy = policy
        self._running: set[RebuildProcess] = set()
        self._refused: dict[int, float] = {}  # generations, and when to look at them again
        self._ended = threading.Event()
        self.error: str | None = None  # why the last look in the background failed, a sentence
        self._thread: threading.Thread | None = None

    @property
    def is_rebuild_due(self) -> bool:
        """Whether a new ANN index would pay."""
        return is_rebuild_due(self._follower.snapshot, self._policy)

    def rebuild(
        self,
        *,
        target: float | None = None,
        tune: bool = False,
        on_stage: Callable[[str], None] = lambda _: None,
        on_start: Callable[[Callable[[], None]], None] = lambda _: None,
    ) -> Compaction:
        """Build the search index anew in a process of its own, and search on it.

        Searches and writes go on meanwhile.

        Args:
            target: recall@10 to reach; ``None`` keeps what was asked for before, or 0.99.
            tune: measure every ANN index that is worth trying and keep the quickest from now on.
            on_stage: told what begins.
            on_start: given a function that ends it, from any thread.

        Raises:
            ReadOnlyError: nothing can be written.
            RebuildBusyError: another process is at it.
            RebuildError: it failed, was ended, or the gallery was closed; the old index stays.
        """
        self.check_writable()
        rebuild = RebuildProcess(self._store.folder, target, tune)
        self._running.add(rebuild)
        try:
            on_start(rebuild.stop)
            if self._ended.is_set():
                rebuild.stop()
            made = rebuild.run(on_stage)
        finally:
            self._running.discard(rebuild)
        self.adopt_newest_generation()
        return made

    def check_location(self) -> None:
        """Accept a gallery that lies where it was opened, for work that opens it anew by its path.

        Raises:
            ReadOnlyError: it does not; the sentence says what is missing.
        """
        displaced = self._store.check_files()
        if displaced is not None:
            raise ReadOnlyError(displaced)

    def check_writable(self) -> None:
        """Accept a gallery that lies where it was opened, and where it can be written to.

        Raises:
            ReadOnlyError: it does not; the sentence says why.
        """
        self._store.check_files()
        if self._store.read_only_reason is not None:
            raise ReadOnlyError(self._store.read_only_reason)

    def adopt_newest_generation(self) -> bool:
        """Search on the newest sound generation, if it is newer than the one in use.

        Returns:
            Whether there was one.
        """
        view = self._follower.snapshot.immutable
        used = 0 if view is None else view.segment.generation
        numbers = self._generations.known(self._store)
        for gone in self._refused.keys() - set(numbers):
            del self._refused[gone]  # one of the same number may come in its place
        for number in numbers:
            if number <= used:
                return False
            if time.monotonic() < self._refused.get(number, 0.0):
                continue
            try:
                segment = self._generations.load(number, last_seq=self._store.last_seq())
                self._follower.adopt(segment)
            except GenerationError as error:
                logger.warning("%s", error)
                self._refused[number] = time.monotonic() + self._policy.failure_retry_s
            else:
                return True
        return False

    def info(self) -> GalleryInfo:
        """Return what the gallery holds now, and for which model."""
        snapshot = self._follower.catch_up()
        folder, binding, immutable = self._store.folder, self._store.binding, snapshot.immutable
        spec = EXACT if immutable is None else immutable.segment.spec
        reason = self._store.read_only_reason
        return GalleryInfo(
            name=folder.absolute().name,
            count=snapshot.count,
            seq=snapshot.seq,
            structure=spec.kind,
            recall=spec.recall,
            recall_low=spec.recall_low,
            recall_high=spec.recall_high,
            recall_queries=spec.queries,
            note=spec.note or None,
            generation=0 if immutable is None else immutable.segment.generation,
            recent=snapshot.delta.live_count,
            state="writable" if reason is None else "read-only",
            reason=reason,
            model_name=binding.model_name,
            fingerprint=binding.fingerprint,
            width=binding.width,
            bytes_on_disk=folder_bytes(folder),
        )

    def lag(self) -> int:
        """Return how many writes the database has that searches of this process do not see yet.

        Raises:
            StorageError: the database cannot be read.
        """
        seen = self._follower.snapshot.seq  # first: what comes between the two counts as not seen
        return max(0, self._store.last_seq() - seen)

    def generation_built(self) -> float | None:
        """Return when the generation in use was built, Unix time; ``None``: there is none."""
        view = self._follower.snapshot.immutable
        if view is None:
            return None
        try:
            return self._generations.path(view.segment.generation).stat().st_mtime
        except OSError:  # deleted: a newer one is about to be adopted
            return None

    def problems(self) -> list[str]:
        """Return a sentence for every fault found in the database, the log and the index.

        Reads everything; changes nothing and keeps nobody from reading or writing.

        Raises:
            GalleryFolderError: so damaged that it cannot be read to the end.
        """
        problems = [
            *store_problems(self._store),
            *self._generations.problems(last_seq=self._store.last_seq),
        ]
        for _ in range(VERIFY_ATTEMPTS):
            with self._store.reading() as reader:
                stored_seq = last_seq(reader)
                snapshot = self._follower.catch_up()
                if snapshot.seq == stored_seq:  # the same moment: neither of them moves now
                    return problems + snapshot_problems(reader, snapshot)
        return [*problems, "the index was not compared: the gallery kept changing; verify it again"]

    def start(self) -> None:
        """From now on, look after the index in the background; for processes that stay."""
        if self._store.read_only_reason is None:
            self._generations.sweep(self._store)
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what was started; an index that is being built is left out."""
        self._ended.set()
        for rebuild in list(self._running):
            rebuild.stop()
        if self._thread is not None:
            self._thread.join()

    def _pays(self) -> bool:
        """Whether a new index would pay now, or at the next start: the files may be gone."""
        view = self._follower.snapshot.immutable
        numbers = self._generations.numbers()
        return self.is_rebuild_due or (view is not None and view.segment.generation not in numbers)

    def _run(self) -> None:
        pause_s = self._policy.check_period_s
        while not self._ended.wait(pause_s):
            pause_s = self._policy.check_period_s
            self._store.check_files()
            try:
                if (
                    not self.adopt_newest_generation()
                    and self._store.read_only_reason is None
                    and self._pays()
                ):
                    made = self.rebuild()
                    logger.info("generation %d holds %d items", made.generation, made.count)
                    if made.spec.note:
                        logger.warning("generation %d: %s", made.generation, made.spec.note)
                self.error = None
            except RebuildBusyError:
                pause_s = self._policy.busy_retry_s
            except (VectorIndexError, OSError, MemoryError) as error:
                if not self._ended.is_set():
                    logger.warning("the search structure stays as it is: %s", error)
                    self.error = str(error)
                pause_s = self._policy.failure_retry_s
