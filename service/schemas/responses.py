"""The shapes of all other answers: asked for seldom, or read back (jobs); see query_responses.py.

They are the contract, and /openapi.json is made from them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from index.items.item import Item
from index.search.index_spec import Kind
from service.schemas.query_responses import ModelName, QueryAnswer, Timings

State = Literal["writable", "read-only"]
JobKind = Literal["rebuild", "tune", "backup", "duplicates", "delete", "import"]


class Answer(BaseModel):
    """Every answer carries the id of its request, also in the header X-Request-ID."""

    request_id: str


class StoredItem(TypedDict):
    """One item of the gallery, without its vector and picture."""

    id: str
    label: str | None
    metadata: dict[str, Any]
    content_sha256: Annotated[str, Field(description="of the image bytes as they were sent")]
    created: Annotated[str, Field(description="ISO 8601, UTC")]
    seq: Annotated[int, Field(description="the write that stored it")]


class ItemAnswer(QueryAnswer, StoredItem):
    """One item."""


class ItemPage(QueryAnswer):
    """Items in the order they were stored."""

    seq: int
    items: list[StoredItem]
    next_cursor: Annotated[
        str | None, Field(description="pass it as cursor; null on the last page")
    ]


def stored_item(item: Item) -> StoredItem:
    """Return an item as answers show it."""
    return StoredItem(
        id=item.id,
        label=item.label,
        metadata=item.metadata,
        content_sha256=item.content_sha256,
        created=item.created,
        seq=item.seq,
    )


class StoreAnswer(Answer):
    """What became of one item."""

    id: str
    outcome: Literal["created", "replaced", "unchanged"]
    seq: int = Field(description="pass it as min_seq to a search that must see this write")
    model: ModelName
    timings_ms: Timings


class DeleteAnswer(Answer):
    """The item is gone."""

    id: str
    seq: int


class DeletedAnswer(Answer):
    """Many items are gone."""

    deleted: int = Field(description="items that were there, and are gone")
    seq: int


class FacetValue(BaseModel):
    """One value, and how many items have it."""

    value: bool | int | float | str
    count: int


class FacetValues(BaseModel):
    """What items say under one key; an item with a list counts under each of its values."""

    key: str
    values: list[FacetValue] = Field(description="the most frequent first")
    distinct: int = Field(description="values that there are, listed here or not")


class FacetAnswer(Answer):
    """How many items there are, and what they say."""

    seq: int = Field(description="newest write that was counted")
    count: int = Field(description="items for which the filter holds")
    facets: list[FacetValues] = Field(description="one per key, in the order the keys came")


class BulkResult(BaseModel):
    """What became of one item of many."""

    id: str | None
    status: int
    outcome: Literal["created", "replaced", "unchanged"] | None = None
    code: str | None = None
    detail: str | None = None


class BulkAnswer(Answer):
    """One result per item, in the order the items came."""

    seq: int
    results: list[BulkResult]


class ExportNeighbours(BaseModel):
    """What a search finds by an exported network, beside what it finds by torch."""

    images: int = Field(description="of which each searched all others")
    overlap: float = Field(description="share of torch's ten nearest that are found")
    overlap_beside_torch: float = Field(description="likewise, in a gallery of torch's vectors")
    r_at_1_torch: float | None = Field(description="in [0, 1]; null: there are no classes")
    r_at_1: float | None = Field(description="in [0, 1], of the export")
    r_at_1_beside_torch: float | None = Field(description="likewise, among torch's vectors")
    lost: int | None = Field(description="images of which only torch's nearest is of their class")
    won: int | None = Field(description="images of which only the export's is")


class ExportDifference(BaseModel):
    """How far an exported network is from torch, as measured when it was exported."""

    images: int = Field(description="that both looked at")
    cosine_mean: float = Field(description="of an image's two vectors")
    cosine_low: float = Field(description="that 1 % of the images do not reach")
    cosine_min: float
    accuracy_torch: float | None = Field(description="in [0, 1]; null: there are no classes")
    accuracy: float | None = Field(description="in [0, 1], of the export")
    lost: int | None = Field(
        default=None, description="images that only torch is right of; null: not known"
    )
    won: int | None = Field(default=None, description="images that only the export is right of")
    neighbours: ExportNeighbours | None = Field(
        default=None, description="of a search among the images; null: not known"
    )


class RuntimeInfo(BaseModel):
    """What computes the vectors."""

    name: str = Field(description="torch or openvino")
    precision: str = Field(description="of most of the numbers")
    difference: ExportDifference | None = Field(
        description="to torch; null: it is torch, or was not measured"
    )
    note: str | None = Field(
        default=None, description="why this machine computes it otherwise than it was exported"
    )


class ModelAnswer(Answer):
    """The loaded model, and the version of the service."""

    version: str = Field(description="of the service, such as 1.2.0")
    name: str
    fingerprint: str
    labels: list[str] = Field(description="classes; empty: it has learnt none")
    kind: float | None = Field(
        description="the knob's default in searches, 0 this very thing, 1 the same kind; null: none"
    )
    metrics: dict[str, float]
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    created: str
    device: str
    runtime: RuntimeInfo


class GalleryAnswer(Answer):
    """The open gallery."""

    name: str
    count: int
    seq: int
    structure: Kind = Field(description="what a search goes through; exact: every item")
    recall: float | None = Field(description="of the structure at 10 hits, as measured")
    recall_low: float | None = Field(description="it is no lower, with 95 % confidence")
    recall_high: float | None = Field(description="it is no higher, with 95 % confidence")
    recall_queries: int = Field(description="queries that it was measured with; 0: none")
    note: str | None = Field(description="what to know about how searches are answered")
    generation: int = Field(description="of the structure; 0: none was built yet")
    recent: int = Field(description="items stored since, which every search looks at")
    state: State = Field(description="whether items can be stored; reason says why not")
    reason: str | None = Field(description="why it is read-only")
    storage_note: str | None = Field(description="what threatens what is stored, where it lies")
    model_name: str
    model_fingerprint: str
    width: int
    bytes_on_disk: int


class Health(Answer):
    """A probe's answer."""

    status: Literal["ok"]


class Readiness(Health):
    """Searches work; whether writes do."""

    gallery: State
    reason: str | None = Field(description="why the gallery is read-only")
    checks: dict[str, str] = Field(description='by name "ok", or a sentence that says why not')


class JobSummary(BaseModel):
    """A long piece of work on the whole gallery."""

    id: str
    kind: JobKind
    parameters: dict[str, Any]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    stage: str | None = Field(description="what it is at")
    progress: float | None = Field(description="share that is done, in [0, 1]; null: not known")
    created: str = Field(description="ISO 8601, UTC, as are the other times")
    started: str | None
    ended: str | None
    problem: dict[str, Any] | None = Field(description="why it failed: status, code and detail")


class Job(JobSummary):
    """A job with what came of it."""

    result: dict[str, Any] | None = Field(description="depends on the kind; null until it is done")


class JobAnswer(Answer, Job):
    """One job."""


class JobList(Answer):
    """The newest jobs first, without their results."""

    jobs: list[JobSummary]


class ProblemAnswer(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str = Field(description="a sentence for people")
    code: str = Field(description="stable, for programs")
    request_id: str
