"""Fills a gallery: read → decode → encode → add. Entries in, a report out.

Decoding runs on a few threads, one chunk ahead of the network; every chunk is one transaction.
What is stored already is skipped before it is decoded, so a build that was interrupted at any
moment goes on where it was, without duplicates.

Shape suffixes: B images, C channels, H x W pixels, D vector width.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from index.errors import VectorIndexError
from index.gallery import Gallery
from index.items import Item, NewItem, check_id, check_label, encode_metadata
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did."""

    added: int
    replaced: int
    unchanged: int  # stored already with the same content, label and metadata
    refused: list[tuple[str, str]]  # (id, why), in the order of the entries
    count: int  # images in the gallery now
    seconds: float
    # Of how many stored items an import did not have a part, which stayed as it was.
    left_as_stored: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, outcomes: Counter[str], refused: list[tuple[str, str]], *, count: int, started: float
    ) -> Self:
        """Return the report of work that began at ``started``, a ``time.perf_counter``."""
        return cls(
            added=outcomes["created"],
            replaced=outcomes["replaced"],
            unchanged=outcomes["unchanged"],
            refused=refused,
            count=count,
            seconds=time.perf_counter() - started,
        )

    @property
    def images_per_second(self) -> float:
        """Images dealt with, refused and unchanged ones included."""
        done = self.added + self.replaced + self.unchanged + len(self.refused)
        return done / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class _Decoded:
    entry: Entry
    content_sha256: str
    pixels_CHW: NDArray[np.uint8]
    thumbnail: Thumbnail


@dataclass(frozen=True, slots=True)
class _Refused:
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Entries of one transaction: the ones already stored, and the others while they decode."""

    unchanged: int
    slices: list[Future[list[_Decoded | _Refused]]]


def build(
    gallery: Gallery,
    entries: Iterable[Entry],
    *,
    encoder: ImageEncoder,
    limits: ImageLimits,
    on_progress: Callable[[int], None],
) -> BuildReport:
    """Store every entry that can be decoded; list the ones that cannot.

    Args:
        gallery: of the encoder's model; what it holds under other ids stays.
        entries: read lazily, at most two chunks ahead of what is stored.
        encoder: the model.
        limits: what one image may cost.
        on_progress: called with the number of entries dealt with since its last call.

    Raises:
        ModelMismatchError: the gallery holds vectors of another model.
        DiskFullError, StorageError: the chunk at hand was not stored; the ones before it are.
        Whatever ``entries`` raises, with the same state.
    """
    gallery.binding.check(encoder.manifest.fingerprint, gallery.folder)
    started = time.perf_counter()
    outcomes: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
    try:
        for chunk in _one_ahead(_decoding(pool, gallery, entries, encoder.manifest, limits)):
            outcomes["unchanged"] += chunk.unchanged
            on_progress(chunk.unchanged)
            results = [result for future in chunk.slices for result in future.result()]
            broken = [result for result in results if isinstance(result, _Refused)]
            refused += [(one.id, one.reason) for one in broken]
            on_progress(len(broken))
            decoded = [result for result in results if isinstance(result, _Decoded)]
            items = list(_encoded(decoded, encoder, on_progress))
            outcomes.update(result.outcome for result in gallery.put(items))
    finally:
        pool.shutdown(cancel_futures=True)
    return BuildReport.of(outcomes, refused, count=gallery.count, started=started)


def _decoding(
    pool: ThreadPoolExecutor,
    gallery: Gallery,
    entries: Iterable[Entry],
    manifest: Manifest,
    limits: ImageLimits,
) -> Iterator[_Chunk]:
    """Give chunk after chunk, its new entries already being decoded."""
    for chunk in _chunks(entries):
        hashes = [hashlib.sha256(entry.data).hexdigest() for entry in chunk]
        stored = gallery.existing([entry.id for entry in chunk])
        new = [
            (entry, content_sha256)
            for entry, content_sha256 in zip(chunk, hashes, strict=True)
            if not _is_same(stored.get(entry.id), entry, content_sha256)
        ]
        slices = [new[start : start + SLICE] for start in range(0, len(new), SLICE)]
        futures = [pool.submit(_decode, part, manifest.preprocessing, limits) for part in slices]
        yield _Chunk(len(chunk) - len(new), futures)


def _decode(
    part: list[tuple[Entry, str]], preprocessing: Preprocessing, limits: ImageLimits
) -> list[_Decoded | _Refused]:
    return [
        _decode_one(entry, content_sha256, preprocessing, limits) for entry, content_sha256 in part
    ]


def _decode_one(
    entry: Entry, content_sha256: str, preprocessing: Preprocessing, limits: ImageLimits
) -> _Decoded | _Refused:
    if entry.problem is not None:
        return _Refused(entry.id, entry.problem)
    try:
        check_id(entry.id)
        check_label(entry.label)
        encode_metadata(entry.metadata)
        image = preprocessing.decode(entry.data, limits=limits)
    except (ImageError, VectorIndexError) as error:
        return _Refused(entry.id, str(error))
    return _Decoded(entry, content_sha256, preprocessing.pixels(image), make_thumbnail(image))


def _encoded(
    decoded: list[_Decoded], encoder: ImageEncoder, on_progress: Callable[[int], None]
) -> Iterator[NewItem]:
    for start in range(0, len(decoded), BATCH):
        batch = decoded[start : start + BATCH]
        vectors_BD = encoder.encode(np.stack([one.pixels_CHW for one in batch])).vectors_BD
        for one, vector_D in zip(batch, vectors_BD, strict=True):
            yield NewItem(
                id=one.entry.id,
                vector_D=vector_D,
                label=one.entry.label,
                metadata=one.entry.metadata,
                thumbnail=one.thumbnail,
                content_sha256=one.content_sha256,
            )
        on_progress(len(batch))


def _is_same(stored: Item | None, entry: Entry, content_sha256: str) -> bool:
    return (
        stored is not None
        and stored.content_sha256 == content_sha256
        and stored.label == entry.label
        and stored.metadata == entry.metadata
    )


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
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


def _one_ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Give every chunk only after the next one has begun to decode."""
    waiting: _Chunk | None = None
    for chunk in chunks:
        if waiting is not None:
            yield waiting
        waiting = chunk
    if waiting is not None:
        yield waiting
