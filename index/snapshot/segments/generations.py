"""The generations of a gallery's bulk on disk: a cache of what the database holds.

``snapshots/gen-00000012`` holds the keys, the vectors and the ANN index as of one operation, with a
manifest of sizes and checksums. A generation is renamed to its place when all of it is on the disk,
and counts once the database knows it (`generation_record`); the newest two are kept. What does not
match its manifest, database or model is refused: then the one before is used, or the database.
"""

import logging
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from files.durable import Buffer, FileDigest, read_digest, sync_folder, write_bytes, write_file
from files.locks import locked
from index.errors import GenerationError
from index.search.ann_index import AnnIndex
from index.search.index_spec import OUTDATED, IndexSpec
from index.search.vector_matrix import Matrix, matrix_header
from index.snapshot.segments.generation_manifest import Owner, decode_manifest, encode_manifest
from index.snapshot.segments.generation_record import known_numbers, record
from index.snapshot.segments.immutable_segment import ImmutableSegment
from index.store.store import Store
from index.store.vacuum import check_room

FOLDER: Final = "snapshots"
PREFIX: Final = "gen-"
NAME: Final = re.compile(PREFIX + r"([0-9]{8,18})")
KEPT: Final = 2
FORMAT: Final = 1
KEYS: Final = "keys.i64"
VECTORS: Final = "vectors.f32"
ANN_INDEX: Final = "structure.faiss"
MANIFEST: Final = "manifest.json"
WRITTEN_ROWS: Final = 65_536  # at a time
_UNUSABLE: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError)  # what a fault raises
logger = logging.getLogger("lookalike.index")


class Generations:
    """The generations in one gallery folder. Any process may read; one at a time may write."""

    def __init__(self, gallery: Path, owner: Owner) -> None:
        self.folder = gallery / FOLDER
        self._owner = owner

    @classmethod
    def of(cls, store: Store) -> Self:
        """Return the generations of a gallery."""
        binding = store.binding
        owner = Owner(binding.database_id, binding.fingerprint, binding.width)
        return cls(store.folder, owner)

    def numbers(self) -> list[int]:
        """Return the numbers of those that can be seen, the newest first; sound or not."""
        try:
            return self._numbers()
        except OSError as error:
            logger.warning("no generation can be used: %s", error)
            return []

    def known(self, store: Store) -> list[int]:
        """Return the numbers of those that the database knows, the newest first; sound or not."""
        known = set(known_numbers(store))
        return [number for number in self.numbers() if number in known]

    def oldest_seq(self) -> int:
        """Return the operation of the oldest generation whose manifest can be read; 0: none."""
        seqs = []
        for number in self.numbers():
            try:
                seqs.append(
                    int(decode_manifest((self.path(number) / MANIFEST).read_bytes())["seq"])
                )
            except _UNUSABLE:  # it is no generation that anybody starts from
                continue
        return min(seqs, default=0)

    def load(self, number: int, *, last_seq: int) -> ImmutableSegment:
        """Return one generation; its vectors stay in the file, mapped.

        Raises:
            GenerationError: a file is missing, or is not what the manifest says; it is of another
                database, model or format; or it is ahead of ``last_seq``, the database's newest
                operation.
        """
        folder = self.path(number)
        try:
            return self._load(folder, number, last_seq)
        except _UNUSABLE as error:
            raise GenerationError(f"{folder} cannot be used: {error}") from error

    def problems(self, *, last_seq: Callable[[], int]) -> list[str]:
        """Return a sentence for every generation that cannot be used. Reads all of them."""
        problems = []
        for number in self.numbers():
            try:
                self.load(number, last_seq=last_seq())  # asked now: it may be of a moment ago
            except GenerationError as error:
                if self.path(number).exists():  # nobody pruned it meanwhile
                    problems.append(str(error))
        return problems

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let the block write and prune, and no other process.

        Raises:
            OSError: the folder cannot be made; a BlockingIOError: another process does.
        """
        if not self.folder.is_dir():
            self.folder.mkdir()
            sync_folder(self.folder.parent)
        with locked(self.folder / ".lock", wait=False):
            yield

    def begin(self, store: Store) -> int:
        """Make room for the next generation, and return its number: numbers only grow.

        What killed writers left is deleted, and what the database does not know. To be called
        within ``writing``.

        Raises:
            OSError: it cannot be seen which there are.
            DiskFullError: there is not even room for the vectors.
        """
        numbers = known_numbers(store) or self._numbers()
        self.prune(store)
        needed = store.count() * (8 + 4 * self._owner.width)  # keys and vectors
        check_room(self.folder, needed, "a new structure, at least,")
        return max(numbers, default=0) + 1

    def write(
        self,
        number: int,
        *,
        store: Store,
        seq: int,
        keys_N: NDArray[np.int64],
        matrix: Matrix,
        spec: IndexSpec,
        ann_index: AnnIndex | None,
        settings: Mapping[str, str],
        before_commit: Callable[[], None],
    ) -> None:
        """Write a new generation, as of operation ``seq``, and tell the database of it.

        One transaction lets it be used and remembers ``settings``; before it comes
        ``before_commit``, and until then nothing has changed.
        To be called within ``writing``, with the number that ``begin`` gave.

        Raises:
            OSError, ReadOnlyError, DiskFullError, StorageError: it could not be written; nothing of
                it is left, as far as that could be deleted.
        """
        unfinished = self.folder / _hidden(self.path(number).name)
        unfinished.mkdir()
        try:
            files = {
                KEYS: write_bytes(unfinished / KEYS, [keys_N.astype("<i8").tobytes()]),
                VECTORS: write_bytes(unfinished / VECTORS, _pieces(matrix)),
            }
            if ann_index is not None:
                # FAISS's own file writer neither syncs nor tells that the last bytes found no room.
                files[ANN_INDEX] = write_file(
                    unfinished / ANN_INDEX,
                    lambda append: faiss.write_index(
                        ann_index.index, faiss.PyCallbackIOWriter(append)
                    ),
                )
            manifest = {
                "format": FORMAT,
                "seq": seq,
                "count": len(keys_N),
                "database_id": self._owner.database_id,
                "fingerprint": self._owner.fingerprint,
                "width": self._owner.width,
                "plan": spec.to_json(),
                "strays": [] if ann_index is None else ann_index.unindexed_rows.tolist(),
                "files": {name: [facts.bytes, facts.crc32] for name, facts in files.items()},
                "faiss": faiss.__version__,
            }
            write_bytes(unfinished / MANIFEST, [encode_manifest(manifest)])
            sync_folder(unfinished)
            unfinished.rename(self.path(number))
            sync_folder(self.folder)
            before_commit()
            there = set(self._numbers()) - {number}
            record(store, number, seq, there=there, settings=settings)
        except BaseException:
            if self.path(number).is_dir():  # nobody uses what the database does not know
                self.path(number).rename(unfinished)
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # not there any more when all went well

    def prune(self, store: Store) -> None:
        """Delete all but the newest generations, and what writers that were killed left behind.

        To be called within ``writing``. A process that has an old one mapped keeps reading it. What
        cannot be deleted stays until the next time.
        """
        known = known_numbers(store)
        try:
            numbers = self._numbers()  # under its name it is whole, or not there
            kept = [number for number in numbers if number in known][:KEPT]
            for number in set(numbers) - set(kept):
                path = self.path(number)
                path.rename(path.with_name(_hidden(path.name)))
            for path in self.folder.glob(f".{PREFIX}*"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:  # somebody put it there
                    path.unlink()
        except OSError as error:
            logger.warning("what is left of old generations stays: %s", error)

    def sweep(self, store: Store) -> None:
        """Prune, unless another process is writing, or there is nothing."""
        if self.folder.is_dir():
            with suppress(OSError), self.writing():
                self.prune(store)

    def _numbers(self) -> list[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        matches = [NAME.fullmatch(name) for name in names]
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def path(self, number: int) -> Path:
        """Return the folder of a generation."""
        return self.folder / f"{PREFIX}{number:08}"

    def _load(self, folder: Path, number: int, last_seq: int) -> ImmutableSegment:
        manifest = decode_manifest((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']}, not {FORMAT}")
        owner = Owner(manifest["database_id"], manifest["fingerprint"], manifest["width"])
        if owner != self._owner:
            raise ValueError("it belongs to another gallery or model")
        if manifest["seq"] > last_seq:
            raise ValueError(f"it is of operation {manifest['seq']}, the database of {last_seq}")
        spec, unindexed = IndexSpec.from_json(manifest["plan"]), manifest.get("strays")
        expected = {KEYS, VECTORS} | ({ANN_INDEX} if spec.kind != "exact" else set())
        if set(manifest["files"]) != expected:
            raise ValueError(f"it lists the files {sorted(manifest['files'])}")
        for name, facts in manifest["files"].items():
            if read_digest(folder / name) != FileDigest(*facts):
                raise ValueError(f"{name} is not what was written")
        keys_N, count = np.fromfile(folder / KEYS, "<i8").astype(np.int64), manifest["count"]
        if len(keys_N) != count:
            raise ValueError(f"it has {len(keys_N)} keys, not {count}")
        matrix = Matrix.mapped(folder / VECTORS, count=count, width=owner.width)
        ann_index = None
        if spec.kind != "exact" and unindexed is None:
            spec = OUTDATED
        if spec.kind != "exact":
            index = faiss.read_index(str(folder / ANN_INDEX), faiss.IO_FLAG_MMAP_IFC)
            if (index.ntotal, index.d) != (count, owner.width):
                raise ValueError(f"its structure holds {index.ntotal} rows of {index.d} numbers")
            ann_index = AnnIndex(index, matrix, spec).with_unindexed_rows(
                np.array(unindexed, np.int64)
            )
        return ImmutableSegment(
            generation=number,
            seq=manifest["seq"],
            keys_N=keys_N,
            matrix=matrix,
            spec=spec,
            ann_index=ann_index,
        )


def _hidden(name: str) -> str:
    """Return a name for what is not whole: not yet, or no longer."""
    return f".{name}.{secrets.token_hex(4)}"


def _pieces(matrix: Matrix) -> Iterator[Buffer]:
    rows_ND = matrix.rows_ND
    yield matrix_header(*rows_ND.shape)
    for start in range(0, len(rows_ND), WRITTEN_ROWS):
        yield rows_ND[start : start + WRITTEN_ROWS].data.cast("B")
