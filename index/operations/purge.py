"""Makes what was deleted unreadable: a gallery in, its files without a trace of it out.

A deleted item's row is overwritten with zeros where it lay; but the write-ahead log, pages that
were rearranged, older generations of the search structure, and records of jobs may still hold its
bytes, and what a build's source said of an item outlives edits. Here all of them are written
anew or deleted.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from files.durable import sync_folder
from index.errors import RebuildBusyError, StorageError
from index.gallery import Gallery
from index.snapshot.segments.generation_manifest import Owner
from index.snapshot.segments.generations import FOLDER, Generations
from index.store.build_origins import purge_edited
from index.store.vacuum import check_room_to_rewrite, folder_bytes, rewrite_database

JOBS: Final = "jobs"  # folder of the records of jobs
# The kinds of jobs whose records have ids, labels or metadata: in lists, filters and refusals.
NAME_ITEMS: Final = ("duplicates", "delete", "import")
ENDED: Final = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeReport:
    """What a purge did."""

    seq: int  # whatever was deleted up to this operation is gone
    generations: int  # of the search structure, deleted
    lists: int  # records of jobs that list or name items, deleted
    bytes_saved: int


def purge(gallery: Gallery, *, on_stage: Callable[[str], None]) -> PurgeReport:
    """Leave no bytes of deleted or replaced items in the gallery's folder.

    The structure is built anew, the older ones are deleted, the database is written anew, its
    write-ahead log emptied. Searches go on meanwhile; whoever writes waits while the database is
    written, which takes as much room again. Backups and exports that were made before are not
    touched, and what programs hold in memory goes with their end.

    Raises:
        ReadOnlyError: nothing can be written.
        RebuildBusyError: another process builds the structure; nothing was changed.
        RebuildError: building it failed; the old one stays, with what was deleted.
        DiskFullError, StorageError: the database is as it was; or somebody still reads an older
            state of it. Another purge does the rest.
    """
    gallery.check_writable()
    check_room_to_rewrite(gallery.folder)
    before = folder_bytes(gallery.folder)
    seq = gallery.catch_up()
    binding = gallery.binding
    owner = Owner(binding.database_id, binding.fingerprint, binding.width)
    removed = 0
    generations = Generations(gallery.folder, owner)
    if generations.folder.is_dir():  # with generations in it, or halves that killed writers left
        made = gallery.rebuild(on_stage=on_stage)
        removed = _delete_older(generations, than=made.generation)
    on_stage("writing the database anew")
    purge_edited(gallery.folder)
    rewrite_database(gallery.folder)
    lists = _delete_records(gallery.folder / JOBS)
    saved = before - folder_bytes(gallery.folder)
    return PurgeReport(seq=seq, generations=removed, lists=lists, bytes_saved=saved)


def _delete_older(generations: Generations, *, than: int) -> int:
    """Delete the generations before ``than``; processes that have them mapped keep reading them."""
    try:
        with generations.writing():
            older = [number for number in generations.numbers() if number < than]
            for number in older:
                shutil.rmtree(generations.path(number))
            sync_folder(generations.folder)
    except BlockingIOError as error:
        raise RebuildBusyError("the search structure is being built; purge again later") from error
    except OSError as error:
        raise StorageError(f"cannot delete older generations in {FOLDER}: {error}") from error
    return len(older)


def _delete_records(folder: Path) -> int:
    """Delete the records of ended jobs that name items."""
    deleted = 0
    for path in folder.glob("*.json"):
        try:
            record = json.loads(path.read_bytes())
            if record["kind"] in NAME_ITEMS and record["state"] in ENDED:
                path.unlink()
                deleted += 1
        except (OSError, ValueError, KeyError, TypeError):  # gone by now, or none of ours
            continue
    return deleted
