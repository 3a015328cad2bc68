"""The generations of a gallery's bulk on disk: a cache of what the database holds.

``snapshots/gen-00000012`` holds the keys, the vectors and the structure as of one operation, with a
manifest that names size and checksum of each file. A generation is written beside its final name
and renamed when all of it is on the disk; the newest two are kept. Whatever does not match its
manifest, its database or its model is refused: then the one before is used, or the database.

The database knows the generations that were made of it. One that was made of writes which a
restored backup has undone is unknown to it: other items may have its keys by now.
"""

import fcntl
import hashlib
import json
import logging
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from index.base import Base
from index.durable import Buffer, FileFacts, read_facts, sync_folder, write_bytes, write_file
from index.errors import GenerationError
from index.matrix import Matrix, matrix_header
from index.plan import OUTDATED, Plan
from index.store import Store
from index.structure import Structure

FOLDER: Final = "snapshots"
PREFIX: Final = "gen-"
NAME: Final = re.compile(PREFIX + r"([0-9]{8,18})")
KEPT: Final = 2
FORMAT: Final = 1
KEYS: Final = "keys.i64"
VECTORS: Final = "vectors.f32"
STRUCTURE: Final = "structure.faiss"
MANIFEST: Final = "manifest.json"
RECORD: Final = "generations"  # the setting in the database: [number, seq] of each
WRITTEN_ROWS: Final = 65_536  # at a time
_UNUSABLE: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError)  # what a fault raises
logger = logging.getLogger("lookalike.index")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rows a generation holds."""

    database_id: str
    fingerprint: str  # of the model
    width: int


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
        """Return the numbers of all generations there are, the newest first; sound or not.

        A folder that cannot be read has none.
        """
        try:
            return self._numbers()
        except OSError as error:
            logger.warning("no generation can be used: %s", error)
            return []

    def oldest_seq(self) -> int:
        """Return the operation of the oldest generation whose manifest can be read; 0: none."""
        seqs = []
        for number in self.numbers():
            try:
                seqs.append(int(_unsealed((self.path(number) / MANIFEST).read_bytes())["seq"]))
            except _UNUSABLE:  # it is no generation that anybody starts from
                continue
        return min(seqs, default=0)

    def load(self, number: int, *, last_seq: int) -> Base:
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

    def problems(self, *, last_seq: int) -> list[str]:
        """Return a sentence for every generation that cannot be used. Reads all of them."""
        problems = []
        for number in self.numbers():
            try:
                self.load(number, last_seq=last_seq)
            except GenerationError as error:
                if self.path(number).exists():  # nobody pruned it meanwhile
                    problems.append(str(error))
        return problems

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let the block write and prune, and no other process.

        Raises:
            BlockingIOError: another process does.
            OSError: the folder cannot be made.
        """
        if not self.folder.is_dir():
            self.folder.mkdir()
            sync_folder(self.folder.parent)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def record(self, store: Store, *, seq: int) -> int:
        """Tell the database of the generation that comes next, and return its number.

        To be called within ``writing``, before ``write``.

        Raises:
            OSError: it cannot be seen which there are.
            ReadOnlyError, DiskFullError, StorageError: nothing was changed.
        """
        there = self._numbers()
        number = max(there, default=0) + 1
        known = [pair for pair in recorded(store.setting(RECORD)) if pair[0] in there]
        store.set_setting(RECORD, json.dumps([*known, (number, seq)]))
        return number

    def write(
        self,
        number: int,
        *,
        seq: int,
        keys_N: NDArray[np.int64],
        matrix: Matrix,
        plan: Plan,
        structure: Structure | None,
    ) -> None:
        """Write a new generation, as of operation ``seq``.

        To be called within ``writing``.

        Raises:
            OSError: it could not be written; nothing unfinished is left, as far as that could be
                deleted. (When only syncing the folder failed, it is there, and whole.)
        """
        unfinished = self.folder / _hidden(self.path(number).name)
        unfinished.mkdir()
        try:
            files = {
                KEYS: write_bytes(unfinished / KEYS, [keys_N.astype("<i8").tobytes()]),
                VECTORS: write_bytes(unfinished / VECTORS, _pieces(matrix)),
            }
            if structure is not None:
                files[STRUCTURE] = write_file(
                    unfinished / STRUCTURE, lambda append: _serialise(structure.index, append)
                )
            manifest = {
                "format": FORMAT,
                "seq": seq,
                "count": len(keys_N),
                "database_id": self._owner.database_id,
                "fingerprint": self._owner.fingerprint,
                "width": self._owner.width,
                "plan": plan.to_json(),
                "strays": structure.strays.rows.tolist() if structure and structure.strays else [],
                "files": {name: [facts.bytes, facts.crc32] for name, facts in files.items()},
                "faiss": faiss.__version__,
            }
            write_bytes(unfinished / MANIFEST, [_sealed(manifest)])
            sync_folder(unfinished)
            unfinished.rename(self.path(number))
            sync_folder(self.folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # not there any more when all went well

    def prune(self) -> None:
        """Delete all but the newest generations, and what writers that were killed left behind.

        To be called within ``writing``. A process that has an old one mapped keeps reading it.
        """
        for number in self._numbers()[KEPT:]:  # under its name it is whole, or not there
            path = self.path(number)
            path.rename(path.with_name(_hidden(path.name)))
        for path in self.folder.glob(f".{PREFIX}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:  # somebody put it there
                path.unlink()

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

    def _load(self, folder: Path, number: int, last_seq: int) -> Base:
        manifest = _unsealed((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']}, not {FORMAT}")
        owner = Owner(manifest["database_id"], manifest["fingerprint"], manifest["width"])
        if owner != self._owner:
            raise ValueError("it belongs to another gallery or model")
        if manifest["seq"] > last_seq:
            raise ValueError(f"it is of operation {manifest['seq']}, the database of {last_seq}")
        plan, strays = Plan.from_json(manifest["plan"]), manifest.get("strays")
        expected = {KEYS, VECTORS} | ({STRUCTURE} if plan.kind != "exact" else set())
        if set(manifest["files"]) != expected:
            raise ValueError(f"it lists the files {sorted(manifest['files'])}")
        for name, facts in manifest["files"].items():
            if read_facts(folder / name) != FileFacts(*facts):
                raise ValueError(f"{name} is not what was written")
        keys_N, count = np.fromfile(folder / KEYS, "<i8").astype(np.int64), manifest["count"]
        if len(keys_N) != count:
            raise ValueError(f"it has {len(keys_N)} keys, not {count}")
        matrix = Matrix.mapped(folder / VECTORS, count=count, width=owner.width)
        structure = None
        if plan.kind != "exact" and strays is None:
            plan = OUTDATED
        if plan.kind != "exact":
            index = faiss.read_index(str(folder / STRUCTURE), faiss.IO_FLAG_MMAP_IFC)
            if (index.ntotal, index.d) != (count, owner.width):
                raise ValueError(f"its structure holds {index.ntotal} rows of {index.d} numbers")
            structure = Structure(index, matrix, plan).with_strays(np.array(strays, np.int64))
        return Base(
            generation=number,
            seq=manifest["seq"],
            keys_N=keys_N,
            matrix=matrix,
            plan=plan,
            structure=structure,
        )


def _hidden(name: str) -> str:
    """Return a name for what is not whole: not yet, or no longer."""
    return f".{name}.{secrets.token_hex(4)}"


def recorded(text: str | None) -> list[tuple[int, int]]:
    """Return number and seq of the generations that the database's record tells of."""
    try:
        return [(int(number), int(seq)) for number, seq in json.loads(text or "[]")]
    except (ValueError, TypeError):  # damaged: all of them are made anew
        return []


def _pieces(matrix: Matrix) -> Iterator[Buffer]:
    rows_ND = matrix.rows_ND
    yield matrix_header(*rows_ND.shape)
    for start in range(0, len(rows_ND), WRITTEN_ROWS):
        yield rows_ND[start : start + WRITTEN_ROWS].data.cast("B")


def _serialise(index: Any, append: Callable[[Buffer], None]) -> None:
    """FAISS's own file writer neither syncs nor tells that the last bytes found no room."""
    faiss.write_index(index, faiss.PyCallbackIOWriter(append))


def _sealed(manifest: dict[str, Any]) -> bytes:
    text = json.dumps(manifest, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"manifest": manifest, "sha256": seal}, sort_keys=True, indent=1).encode()


def _unsealed(data: bytes) -> dict[str, Any]:
    document = json.loads(data)
    manifest: dict[str, Any] = document["manifest"]
    text = json.dumps(manifest, sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != document["sha256"]:
        raise ValueError("its manifest was changed")
    return manifest
