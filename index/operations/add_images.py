"""Fills a gallery: read → hash → decode → encode → add. Entries in, a report out.

Files are read and decoded in processes, ahead of the network; what it gives out is stored by a
thread beside it, many items in one transaction. What is stored already is not decoded, so a build
that was interrupted at any moment goes on where it was, without duplicates. Edits of items are kept
(``edits.py``), and what was built from the same source before and is no longer in it is counted, or
pruned. What is kept of an entry until the end is 8 bytes.

Shape suffixes: B images, C channels, H x W pixels, D vector width.
"""

import hashlib
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from index.decoding.file_decoder import DecodeResult, FileDecoder, FileToDecode
from index.decoding.file_decoder_pool import SLICE, FileDecoderPool
from index.errors import NoThumbnailError, UnknownIdError, VectorIndexError
from index.gallery import Gallery
from index.items.ids import check_id
from index.items.item import Item, NewItem, check_label, encode_metadata
from index.items.source_edits import BuildRecord, Decision, ItemState, decide, known_contents
from index.items.source_entries import ImageEntry
from index.operations.build_report import BuildReport
from index.store.build_origins import BuildOrigins
from vision.image.limits import ImageLimits
from vision.image.thumbnail import Thumbnail
from vision.inference.encoder import ImageEncoder

CHUNK: Final = 1024  # entries per transaction
CHUNK_BYTES: Final = 32 * 2**20  # of thumbnails, likewise: two transactions are in memory at once


@dataclass(frozen=True, slots=True)
class KnownEntry:
    """An entry, and what is known of it."""

    entry: ImageEntry
    item: Item | None  # that is stored
    record: BuildRecord | None  # of the last build

    @property
    def to_decode(self) -> FileToDecode:
        """The file, and which contents of it need no decoding."""
        return FileToDecode(self.entry.data, known_contents(self.item, self.record))


@dataclass(slots=True)
class _Chunk:
    """What one transaction stores."""

    entries: int = 0  # dealt with, stored or not
    bytes: int = 0  # of thumbnails
    items: list[NewItem] = field(default_factory=list)
    new_states: dict[str, ItemState] = field(default_factory=dict)  # to be recorded, by id

    @property
    def is_full(self) -> bool:
        return self.entries >= CHUNK or self.bytes >= CHUNK_BYTES


def build(
    gallery: Gallery,
    entries: Iterable[ImageEntry],
    *,
    source: str,
    encoder: ImageEncoder,
    limits: ImageLimits,
    processes: int = 1,
    on_progress: Callable[[int], None],
    prune: bool = False,
    unread: Collection[str] = (),
) -> BuildReport:
    """Store every entry that can be decoded; list the ones that cannot.

    Args:
        gallery: of the encoder's model; what came from elsewhere stays.
        entries: all that ``source`` holds, read lazily, a few hundred ahead of the network.
        source: where the entries come from, the same each time: what was built from it before, and
            is not among the entries, is stale.
        encoder: the model.
        limits: what one image may cost.
        processes: that decode, where there is enough to do.
        on_progress: called with the number of entries dealt with since its last call.
        prune: delete what is stale, after everything else.
        unread: ids that the source holds as well, and that are known to be stored as they are.

    Raises:
        ModelMismatchError: the gallery holds vectors of another model.
        DiskFullError, StorageError: the transaction at hand was not stored; those before it are.
        Whatever ``entries`` raises, with the same state.
    """
    gallery.binding.check(encoder.manifest.fingerprint, gallery.folder)
    started = time.perf_counter()
    seen = SeenIds(unread)
    decoder = FileDecoder(encoder.manifest.preprocessing, limits, gallery.thumbnail_side)
    with closing(BuildOrigins(gallery.folder, source)) as origins:
        work = _Work(gallery, origins, encoder)
        with FileDecoderPool(decoder, processes=processes) as pool, work:
            slices = in_slices(seen.of(entries), gallery, origins)
            to_decode = ((part, [one.to_decode for one in part]) for part in slices)
            for part, results, pixels_BCHW in pool.decode(to_decode):
                work.do(part, results, pixels_BCHW)
                on_progress(len(part))
        stale = seen.unseen(origins.built_ids())
        for start in range(0, len(stale) if prune else 0, CHUNK):
            work.outcomes["pruned"] += sum(gallery.delete(stale[start : start + CHUNK]))
    work.outcomes["stale"] = 0 if prune else len(stale)
    return BuildReport.from_outcomes(
        work.outcomes, work.refused, count=gallery.count, started=started
    )


class _Work:
    """Slices of decoded entries in, transactions out, each stored while the next one is encoded.

    What was encoded for whole transactions is stored also when the block ends by an error; of an
    unfinished one nothing is.
    """

    def __init__(self, gallery: Gallery, origins: BuildOrigins, encoder: ImageEncoder) -> None:
        self.outcomes: Counter[str] = Counter()
        self.refused: list[tuple[str, str]] = []  # id and why, in the order of the entries
        self._gallery = gallery
        self._origins = origins
        self._encoder = encoder
        self._chunk = _Chunk()
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._storing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._store()
                self._wait()
        finally:
            self._lane.shutdown()

    def do(
        self, part: list[KnownEntry], results: list[DecodeResult], pixels_BCHW: NDArray[np.uint8]
    ) -> None:
        """Encode what has been decoded of a slice, and store it with what else is new."""
        chunk = self._chunk
        vectors_BD = self._encoder.encode(pixels_BCHW).vectors_BD if len(pixels_BCHW) else None
        for one, result in zip(part, results, strict=True):
            if result.problem is not None:
                self.refused.append((one.entry.id, result.problem))
                continue
            decision = decide(one.entry, result.content_sha256, one.item, one.record)
            fault = fault_of(one.entry.id, decision.state)
            if fault is not None:
                self.refused.append((one.entry.id, fault))
                continue
            self.outcomes["kept"] += decision.keeps_edits
            if decision.is_new:
                chunk.new_states[one.entry.id] = decision.source_state
            if decision.is_unchanged:
                self.outcomes["unchanged"] += 1
            elif decision.keeps_image:
                chunk.items += _edited(self._gallery, decision)
            else:
                assert vectors_BD is not None
                assert result.row is not None
                chunk.items.append(_item(decision, vectors_BD[result.row], result.thumbnail))
                chunk.bytes += len(result.thumbnail.data) if result.thumbnail is not None else 0
        chunk.entries += len(part)
        if chunk.is_full:
            self._store()

    def _store(self) -> None:
        """Begin to store what there is, after what is being stored."""
        self._wait()
        chunk, self._chunk = self._chunk, _Chunk()
        self._storing = self._lane.submit(self._stored, chunk)

    def _wait(self) -> None:
        if self._storing is not None:
            self._storing.result()

    def _stored(self, chunk: _Chunk) -> None:
        self.outcomes.update(result.outcome for result in self._gallery.put(chunk.items))
        if chunk.new_states:
            self._origins.record(chunk.new_states)


class SeenIds:
    """Which ids a source has, in 8 bytes each.

    Of a million ids, one that was not seen is taken for seen once in ten million times.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._hashes = array("Q", map(self._hash, ids))

    def of(self, entries: Iterable[ImageEntry]) -> Iterator[ImageEntry]:
        """Pass the entries on, and remember their ids."""
        for entry in entries:
            self._hashes.append(self._hash(entry.id))
            yield entry

    def unseen(self, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that were not seen."""
        sorted_N = np.sort(np.array(self._hashes, np.uint64))

        def is_seen(item_id: str) -> bool:
            wanted = self._hash(item_id)
            place = int(np.searchsorted(sorted_N, np.uint64(wanted)))
            return place < len(sorted_N) and int(sorted_N[place]) == wanted

        return [item_id for item_id in ids if not is_seen(item_id)]

    @staticmethod
    def _hash(item_id: str) -> int:
        digest = hashlib.blake2b(item_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")


def in_slices(
    entries: Iterator[ImageEntry], gallery: Gallery, origins: BuildOrigins
) -> Iterator[list[KnownEntry]]:
    """Give the entries in slices to decode, with what is known of them."""
    while part := list(islice(entries, SLICE)):
        ids = [entry.id for entry in part]
        stored, records = gallery.existing(ids), origins.find(ids)
        yield [KnownEntry(one, stored.get(one.id), records.get(one.id)) for one in part]


def fault_of(item_id: str, state: ItemState) -> str | None:
    """Return why a gallery would not store ``state``; ``None``: it would."""
    try:
        check_id(item_id)
        check_label(state.label)
        encode_metadata(state.metadata)
    except VectorIndexError as error:
        return str(error)
    return None


def _edited(gallery: Gallery, decision: Decision) -> Iterator[NewItem]:
    """Give an item that keeps its image, with what is new beside it; nothing if it was deleted."""
    try:
        vector_D = gallery.vector(decision.entry.id)
        yield _item(decision, vector_D, _thumbnail(gallery, decision.entry.id))
    except UnknownIdError:
        return


def _thumbnail(gallery: Gallery, item_id: str) -> Thumbnail | None:
    try:
        return gallery.thumbnail(item_id)
    except NoThumbnailError:
        return None


def _item(
    decision: Decision, vector_D: NDArray[np.float32], thumbnail: Thumbnail | None
) -> NewItem:
    return NewItem(
        id=decision.entry.id,
        vector_D=vector_D,
        label=decision.state.label,
        metadata=decision.state.metadata,
        thumbnail=thumbnail,
        content_sha256=decision.state.content_sha256,
    )
