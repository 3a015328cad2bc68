"""Vectors to import: names in the operator's folder in, the work that stores what they hold out."""

import errno
import stat
from pathlib import Path
from typing import Any, Final

from index.errors import SourceError
from index.gallery import Gallery
from index.items.item import quoted
from index.search.vectors import Parts
from index.transfer.import_process import ImportProcess, ImportRequest
from service.errors import InvalidParameterError, NoImportsFolderError
from service.jobs.runner import JobContext, JobFunction
from service.schemas.job_parameters import ImportJob

_MISSING: Final = (errno.ENOENT, errno.ENAMETOOLONG)


def import_job(
    options: ImportJob, gallery: Gallery, *, imports: Path | None, parts: Parts | None
) -> JobFunction:
    """Return the work that stores what the files hold that ``options`` name.

    Args:
        options: of the job.
        gallery: is only written to by another process.
        imports: folder in which the files lie; ``None``: there is none.
        parts: of the model's vectors, where they have two.

    Raises:
        NoImportsFolderError: no folder was set.
        InvalidParameterError: not the name of a file within it.
        SourceError: there is no such file, or it leads out of the folder.
    """
    if imports is None:
        raise NoImportsFolderError(
            "this service imports no files: it was started without a folder for them"
        )
    for field in ("source", "ids", "vectors"):
        name = getattr(options, field)
        if name is not None:
            check_import_file(imports, name, field=field)
    request = ImportRequest(
        imports.absolute(),
        options.source,
        ids=options.ids,
        vectors=options.vectors,
        normalize=options.normalize,
        parts=parts,
    )

    def work(context: JobContext) -> dict[str, Any]:
        context.set_stage("importing")
        child = ImportProcess(gallery.folder, request)
        context.on_stop(child.stop)
        return child.run(context.set_progress)

    return work


def check_import_file(folder: Path, name: str, *, field: str) -> None:
    """Accept the name of a file, or of a folder of files, that lies in ``folder`` itself.

    Nothing else is followed or opened: no path, no symbolic link, no device or pipe. Of a folder
    only the files in it are read, nothing below its own folders.

    Raises:
        InvalidParameterError: not a name.
        SourceError: nothing of that name is there, or it is something else.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise InvalidParameterError(
            f"{field} is the name of a file in the folder for imports, not a path, got "
            f"{quoted(name)}"
        )
    path = folder / name
    try:
        mode = path.lstat().st_mode
        inner = [one.lstat().st_mode for one in path.iterdir()] if stat.S_ISDIR(mode) else []
    except OSError as error:
        if error.errno in _MISSING:
            raise SourceError(f"the folder for imports has no {quoted(name)}") from error
        raise SourceError(f"{quoted(name)} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a letter that no file system here has
        raise SourceError(f"the folder for imports has no {quoted(name)}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SourceError(f"{quoted(name)} is no file, but a symbolic link or something else")
    if not all(stat.S_ISREG(one) or stat.S_ISDIR(one) for one in inner):
        raise SourceError(f"{quoted(name)} has a symbolic link or something else in it than files")
