"""What each kind of job does: its parameters in, the work that makes its result out."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from index.gallery import Gallery
from index.items.ids import NAME_PATTERN
from index.items.item import quoted
from index.operations.duplicates import Duplicates, find_duplicates
from index.search.vectors import Parts
from index.transfer.backup import back_up
from service.errors import BackupExistsError, InvalidParameterError, NoBackupsFolderError
from service.jobs.deletion import deletion_job, parse_selection
from service.jobs.import_vectors import import_job
from service.jobs.runner import JobContext, JobFunction
from service.schemas.job_parameters import (
    BackupJob,
    DeleteJob,
    DuplicatesJob,
    ImportJob,
    JobOptions,
    RebuildJob,
    TuneJob,
)
from vision.model.manifest import Architecture

MAX_MEMBERS: Final = 10_000  # ids listed in one result, the largest groups first


def job_function(
    options: JobOptions,
    gallery: Gallery,
    architecture: Architecture,
    *,
    backups: Path | None,
    imports: Path | None,
) -> JobFunction:
    """Return the work of the job that ``options`` ask for.

    Args:
        options: checked, as JSON.
        gallery: that it works on.
        architecture: of the network whose vectors the gallery holds.
        backups: folder for backups, if there is one.
        imports: folder of what may be imported, if there is one.

    Raises:
        InvalidParameterError, NoBackupsFolderError, BackupExistsError: there can be no such backup.
        InvalidParameterError, NoImportsFolderError, SourceError: there is no such file to import.
        ReadOnlyError: the gallery is not where it was, or the job would write where nothing can be.
    """
    gallery.check_location()
    match options:
        case RebuildJob() | TuneJob():
            gallery.check_writable()
            return _rebuild_job(gallery, recall=options.recall, tune=options.kind == "tune")
        case BackupJob():
            return _backup_job(gallery, backup_folder(backups, options.name))
        case DuplicatesJob():
            return _duplicates_job(gallery, min_score=options.min_score)
        case DeleteJob():
            gallery.check_writable()
            return deletion_job(parse_selection(options), gallery)
        case ImportJob():
            gallery.check_writable()
            return import_job(options, gallery, imports=imports, parts=Parts.of(architecture))
    raise AssertionError(options)


def backup_folder(backups: Path | None, name: str) -> Path:
    """Return where the backup of this name goes.

    Raises:
        NoBackupsFolderError: no folder was set.
        InvalidParameterError: not a name.
        BackupExistsError: there is one already.
    """
    if not NAME_PATTERN.fullmatch(name):  # a name, so that it can be no path
        raise InvalidParameterError(
            "the name of a backup has 1 to 128 of the characters A-Z a-z 0-9 . _ : - "
            f"and is not . or .., got {quoted(name)}"
        )
    if backups is None:
        raise NoBackupsFolderError(
            "this service makes no backups: it was started without a folder for them"
        )
    folder = backups / name
    if folder.exists():
        raise BackupExistsError(f"there is a backup named {name}; choose another name")
    return folder


def _rebuild_job(gallery: Gallery, *, recall: float | None, tune: bool) -> JobFunction:
    def work(context: JobContext) -> dict[str, Any]:
        made = gallery.rebuild(
            target=recall, tune=tune, on_stage=context.set_stage, on_start=context.on_stop
        )
        trials = [
            {
                "structure": trial.spec.kind,
                "recall": trial.spec.recall,
                "microseconds": trial.spec.microseconds,
                "reached": trial.reached,
                "build_s": trial.build_s,
            }
            for trial in made.trials
        ]
        return {
            "generation": made.generation,
            "seq": made.seq,
            "count": made.count,
            "structure": made.spec.kind,
            "recall": made.spec.recall,
            "recall_low": made.spec.recall_low,
            "recall_high": made.spec.recall_high,
            "note": made.spec.note or None,
            "trials": trials,
        }

    return work


def _backup_job(gallery: Gallery, folder: Path) -> JobFunction:
    def work(context: JobContext) -> dict[str, Any]:
        context.set_stage("copying")
        back_up(gallery, folder, on_progress=context.set_progress)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return {"name": folder.name, "bytes": size}

    return work


def _duplicates_job(gallery: Gallery, *, min_score: float) -> JobFunction:
    def work(context: JobContext) -> dict[str, Any]:
        context.set_stage("comparing")
        found = find_duplicates(gallery, min_score=min_score, on_progress=context.set_progress)
        return _duplicates_to_json(found)

    return work


def _duplicates_to_json(found: Duplicates) -> dict[str, Any]:
    """Return the groups as JSON, cut where they would fill the memory of whoever reads them."""
    listed: dict[str, Any] = {
        "min_score": found.min_score,
        "complete": found.complete,
        "seq": found.seq,
    }
    for name, groups in (("exact", found.exact), ("near", found.near)):
        room = MAX_MEMBERS
        shown_groups = []
        for group in groups:
            if room <= 1:
                break
            shown_groups.append([asdict(member) for member in group[:room]])
            room -= len(group)
        listed[name] = shown_groups
        listed[f"{name}_groups"] = len(groups)
        listed[f"{name}_items"] = sum(map(len, groups))
    return listed
