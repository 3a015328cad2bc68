"""Makes the folder of a new gallery: complete, or not there at all. A path and its content in."""

import errno
from collections.abc import Callable
from pathlib import Path

from files.durable import sync_folder
from files.unfinished import unfinished
from index.errors import DiskFullError, GalleryFolderError, StorageError, VectorIndexError
from index.store.schema import DATABASE_NAME
from index.store.sqlite.database import check_sqlite_version


def fill_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a database beside ``folder``, and give it its place once it is there.

    Args:
        folder: must not exist, or be empty; parents are made.
        write: makes the file it is told, whole and synced, and leaves no other file beside it.

    Raises:
        GalleryFolderError: something is in the way.
        DiskFullError, StorageError: it cannot be written.
        Whatever ``write`` raises. In every case nothing is left behind.
    """
    check_sqlite_version()
    check_free(folder)
    there = folder.is_dir()  # empty, and perhaps a mount point, which cannot be replaced
    place = folder if there else folder.absolute().parent
    try:
        with unfinished(place / folder.name) as made:
            write(made / DATABASE_NAME)
            sync_folder(made)
            if there:
                (folder / DATABASE_NAME).hardlink_to(made / DATABASE_NAME)
            else:
                made.rename(folder)  # like the link, this never replaces a rival's gallery
            sync_folder(place)
    except OSError as error:
        raise _cannot_create(folder, error) from error


def check_free(folder: Path) -> None:
    """Accept a place for a new gallery: a path where nothing is, or an empty folder.

    Raises:
        GalleryFolderError: something is in the way.
    """
    if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
        raise GalleryFolderError(f"cannot create the gallery {folder}: a file is in the way")
    ours = (f".{folder.name}.", "lost+found")  # a rival's unfinished gallery; a file system's own
    if folder.is_dir() and not all(path.name.startswith(ours) for path in folder.iterdir()):
        raise GalleryFolderError(f"cannot create the gallery {folder}: the folder is not empty")


def _cannot_create(folder: Path, error: OSError) -> VectorIndexError:
    sentence = f"cannot create the gallery {folder}: {error.strerror}"
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
        return GalleryFolderError(sentence)
    return DiskFullError(sentence) if error.errno == errno.ENOSPC else StorageError(sentence)
