"""Fills a gallery: read → decode → encode → add. Entries in, a report out.

Decoding runs on a few threads, one chunk ahead of the network; every chunk is one transaction.
What is stored already is skipped before it is decoded, so a build that was interrupted at any
moment goes on where it was, without duplicates. Edits of items are kept (``edits.py``), and what
was built from the same source before and is no longer in it is counted, or pruned.

Shape suffixes: B images, C channels, H x W pixels, D vector width.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from index.build_report import BuildReport
from index.edits import Claim, Decision, decide
from index.errors import NoThumbnailError, UnknownIdError, VectorIndexError
from index.gallery import Gallery
from index.items import NewItem, check_id, check_label, encode_metadata
from index.origins import Origins
from index.source import Entry
from vision.encoding import Encoding
from vision.errors import ImageError
from vision.image import ImageLimits
from vision.manifest import Manifest
from vision.preprocess import Preprocessing
from vision.thumbnail import Thumbnail, make_thumbnail

BATCH: Final = 256  # images the network sees at once
CHUNK: Final = 1024  # images per transaction
CHUNK_BYTES: Final = 64 * 2**20  # encoded bytes per transaction: two chunks are in memory at once
DECODE_THREADS: Final = 4
SLICE: Final = 32  # images a decoding thread takes at once


class ImageEncoder(Protocol):
    """Turns pixels into unit vectors, as the manifest describes."""

    @property
    def manifest(self) -> Manifest:
        """The model, and how its input is made."""
        ...

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return the vectors of a batch of preprocessed images."""
        ...


@dataclass(frozen=True, slots=True)
class _Decoded:
    wanted: Decision
    pixels_CHW: NDArray[np.uint8]
    thumbnail: Thumbnail


@dataclass(frozen=True, slots=True)
class _Refused:
    id: str
    reason: str


@dataclass(slots=True)
class _Chunk:
    """Entries of one transaction: the ones already stored, and the others while they decode."""

    places: dict[str, int]  # of the ids among the entries
    unchanged: int = 0
    kept: int = 0
    slices: list[Future[list[_Decoded | _Refused]]] = field(default_factory=list)
    edited: list[Decision] = field(default_factory=list)  # the image stays, something else does not
    refused: list[_Refused] = field(default_factory=list)
    news: dict[str, Claim] = field(default_factory=dict)  # to be remembered, by id


def build(
    gallery: Gallery,
    entries: Iterable[Entry],
    *,
    source: str,
    encoder: ImageEncoder,
    limits: ImageLimits,
    on_progress: Callable[[int], None],
    prune: bool = False,
    unread: Collection[str] = (),
) -> BuildReport:
    """Store every entry that can be decoded; list the ones that cannot.

    Args:
        gallery: of the encoder's model; what came from elsewhere stays.
        entries: all that ``source`` holds, read lazily, at most two chunks ahead of what is stored.
        source: where the entries come from, the same each time: what was built from it before, and
            is not among the entries, is stale.
        encoder: the model.
        limits: what one image may cost.
        on_progress: called with the number of entries dealt with since its last call.
        prune: delete what is stale, after everything else.
        unread: ids that the source holds as well, and that are known to be stored as they are.

    Raises:
        ModelMismatchError: the gallery holds vectors of another model.
        DiskFullError, StorageError: the chunk at hand was not stored; the ones before it are.
        Whatever ``entries`` raises, with the same state.
    """
    gallery.binding.check(encoder.manifest.fingerprint, gallery.folder)
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    seen: set[str] = set(unread)
    origins = Origins(gallery.folder, source)
    pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
    try:
        told = _told(entries, seen)
        decoding = _decoding(pool, gallery, origins, told, manifest=encoder.manifest, limits=limits)
        for chunk in _one_ahead(decoding):
            outcomes["unchanged"] += chunk.unchanged
            outcomes["kept"] += chunk.kept
            on_progress(chunk.unchanged)
            results = [result for future in chunk.slices for result in future.result()]
            broken = chunk.refused + [one for one in results if isinstance(one, _Refused)]
            broken.sort(key=lambda one: chunk.places[one.id])
            refused += [(one.id, one.reason) for one in broken]
            on_progress(len(broken))
            decoded = [result for result in results if isinstance(result, _Decoded)]
            items = [*_encoded(decoded, encoder, on_progress), *_edited(gallery, chunk.edited)]
            on_progress(len(chunk.edited))
            outcomes.update(result.outcome for result in gallery.put(items))
            for one in broken:
                chunk.news.pop(one.id, None)
            if chunk.news:
                origins.remember(chunk.news)
        stale = [item_id for item_id in origins.brought() if item_id not in seen]
        for start in range(0, len(stale) if prune else 0, CHUNK):
            outcomes["pruned"] += sum(gallery.delete(stale[start : start + CHUNK]))
        outcomes["stale"] = 0 if prune else len(stale)
    finally:
        pool.shutdown(cancel_futures=True)
        origins.close()
    return BuildReport.of(outcomes, refused, count=gallery.count, started=started)


def _told(entries: Iterable[Entry], seen: set[str]) -> Iterator[Entry]:
    for entry in entries:
        seen.add(entry.id)
        yield entry


def _decoding(
    pool: ThreadPoolExecutor,
    gallery: Gallery,
    origins: Origins,
    entries: Iterable[Entry],
    *,
    manifest: Manifest,
    limits: ImageLimits,
) -> Iterator[_Chunk]:
    """Give chunk after chunk, its new entries already being decoded."""
    for part in chunks(entries):
        ids = [entry.id for entry in part]
        stored, memories = gallery.existing(ids), origins.recall(ids)
        chunk = _Chunk({item_id: place for place, item_id in enumerate(ids)})
        to_decode: list[Decision] = []
        for entry in part:
            decision = decide(entry, stored.get(entry.id), memories.get(entry.id))
            chunk.kept += decision.keeps_edits
            if decision.is_news:
                chunk.news[entry.id] = decision.said
            if entry.problem is not None:
                chunk.refused.append(_Refused(entry.id, entry.problem))
            elif decision.is_unchanged:
                chunk.unchanged += 1
            elif (fault := find_fault(entry.id, decision.claim)) is not None:
                chunk.refused.append(_Refused(entry.id, fault))
            elif decision.keeps_image:
                chunk.edited.append(decision)
            else:
                to_decode.append(decision)
        for start in range(0, len(to_decode), SLICE):
            one_slice = to_decode[start : start + SLICE]
            chunk.slices.append(pool.submit(_decode, one_slice, manifest.preprocessing, limits))
        yield chunk


def _decode(
    part: list[Decision], preprocessing: Preprocessing, limits: ImageLimits
) -> list[_Decoded | _Refused]:
    return [_decode_one(wanted, preprocessing, limits) for wanted in part]


def _decode_one(
    wanted: Decision, preprocessing: Preprocessing, limits: ImageLimits
) -> _Decoded | _Refused:
    entry = wanted.entry
    try:
        image = preprocessing.decode(entry.data, limits=limits)
    except ImageError as error:
        return _Refused(entry.id, str(error))
    return _Decoded(wanted, preprocessing.pixels(image), make_thumbnail(image))


def find_fault(item_id: str, claim: Claim) -> str | None:
    """Return why a gallery would not store ``claim``; ``None``: it would."""
    try:
        check_id(item_id)
        check_label(claim.label)
        encode_metadata(claim.metadata)
    except VectorIndexError as error:
        return str(error)
    return None


def _encoded(
    decoded: list[_Decoded], encoder: ImageEncoder, on_progress: Callable[[int], None]
) -> Iterator[NewItem]:
    for start in range(0, len(decoded), BATCH):
        batch = decoded[start : start + BATCH]
        vectors_BD = encoder.encode(np.stack([one.pixels_CHW for one in batch])).vectors_BD
        for one, vector_D in zip(batch, vectors_BD, strict=True):
            yield _item(one.wanted, vector_D, one.thumbnail)
        on_progress(len(batch))


def _edited(gallery: Gallery, edited: list[Decision]) -> Iterator[NewItem]:
    """Give items that keep their image, with what is new beside it."""
    for wanted in edited:
        try:
            vector_D = gallery.vector(wanted.entry.id)
            yield _item(wanted, vector_D, _thumbnail(gallery, wanted.entry.id))
        except UnknownIdError:  # deleted meanwhile
            continue


def _thumbnail(gallery: Gallery, item_id: str) -> Thumbnail | None:
    try:
        return gallery.thumbnail(item_id)
    except NoThumbnailError:
        return None


def _item(wanted: Decision, vector_D: NDArray[np.float32], thumbnail: Thumbnail | None) -> NewItem:
    return NewItem(
        id=wanted.entry.id,
        vector_D=vector_D,
        label=wanted.claim.label,
        metadata=wanted.claim.metadata,
        thumbnail=thumbnail,
        content_sha256=wanted.claim.content_sha256,
    )


def chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Give the entries in parts that fit into memory twice."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += len(entry.data)
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _one_ahead(decoding: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Give every chunk only after the next one has begun to decode."""
    waiting: _Chunk | None = None
    for chunk in decoding:
        if waiting is not None:
            yield waiting
        waiting = chunk
    if waiting is not None:
        yield waiting
