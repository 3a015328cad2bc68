"""The parameters of each kind of job: JSON in, options out, or a named error."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from index.items.item import quoted
from service.errors import InvalidJsonError, InvalidParameterError
from service.schemas.edit_parameters import DeleteOptions
from service.schemas.parameters import Bool, Cosine, Ids, Options, Recall
from service.schemas.responses import JobKind

MAX_JOB_IDS: Final = 100_000  # of the items that one job deletes
# What JSON Schema can say of values that are checked later; for the document alone.
NAME_SCHEMA: Final[dict[str, Any]] = {"pattern": r"^(?!\.\.?$)[A-Za-z0-9._:-]{1,128}$"}
FILE_SCHEMA: Final[dict[str, Any]] = {"pattern": r"^(?!\.\.?$)[^/\u0000]+$", "maxLength": 255}


class JobOptions(Options):
    """Parameters of beginning a job; each kind has its own."""

    kind: JobKind

    def recorded(self) -> dict[str, Any]:
        """Return the parameters that the job's record has: what was sent, but for long lists."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


class RecallOptions(JobOptions):
    """Parameters of building a search structure."""

    recall: Annotated[
        Recall | None, Field(description="recall at 10 hits to reach; by default as before")
    ] = None


class RebuildJob(RecallOptions):
    """Build the search structure anew."""

    kind: Literal["rebuild"]


class TuneJob(RecallOptions):
    """Measure every structure that is worth trying, and keep the quickest from now on."""

    kind: Literal["tune"]


class BackupJob(JobOptions):
    """Write a copy of the gallery into the operator's folder."""

    kind: Literal["backup"]
    name: Annotated[str, Field(description="name of the backup", json_schema_extra=NAME_SCHEMA)]


class DuplicatesJob(JobOptions):
    """List items of the same content, and items that are near one another."""

    kind: Literal["duplicates"]
    min_score: Annotated[Cosine, Field(description="least cosine similarity of near items")]


class DeleteJob(JobOptions, DeleteOptions):
    """Delete the items that a filter holds for, or that have these ids, a thousand at a time."""

    kind: Literal["delete"]
    ids: Annotated[
        Annotated[Ids, Field(min_length=1, max_length=MAX_JOB_IDS, fail_fast=True)] | None,
        Field(description="ids of the items to delete"),
    ] = None

    def recorded(self) -> dict[str, Any]:
        """Return the parameters without the ids."""
        return self.model_dump(exclude={"kind", "ids"}, exclude_none=True)


class ImportJob(JobOptions):
    """Store the vectors of a file that lies in the operator's folder."""

    kind: Literal["import"]
    source: Annotated[
        str,
        Field(
            description="name of a .parquet, .csv, .jsonl or .npy, or of an exported folder",
            json_schema_extra=FILE_SCHEMA,
        ),
    ]
    ids: Annotated[
        str | None,
        Field(
            description="for a .npy: name of the text file with an id per line",
            json_schema_extra=FILE_SCHEMA,
        ),
    ] = None
    vectors: Annotated[
        str | None,
        Field(
            description="for a table without vectors: name of the .npy with one per row",
            json_schema_extra=FILE_SCHEMA,
        ),
    ] = None
    normalize: Annotated[Bool, Field(description="scale vectors to unit length")] = False


JOBS: Final[dict[str, type[JobOptions]]] = {
    "rebuild": RebuildJob,
    "tune": TuneJob,
    "backup": BackupJob,
    "duplicates": DuplicatesJob,
    "delete": DeleteJob,
    "import": ImportJob,
}


def parse_job(fields: dict[str, Any]) -> JobOptions:
    """Return the options of the kind of job that ``fields`` name.

    Raises:
        RequestError: no kind, an unknown one, or a field that is not of this kind, or wrong.
    """
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in JOBS:
        if "kind" not in fields:
            raise InvalidJsonError("'kind' is missing")
        raise InvalidParameterError(
            f"kind cannot be used: it is one of {', '.join(JOBS)}, got {quoted(kind)}"
        )
    return JOBS[kind].parse(fields)
