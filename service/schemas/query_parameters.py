"""The parameters of routes that look for items: text or typed values in, options out."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from index.query.groups import MAX_KEY_CHARS
from index.query.result_selection import MAX_EXCLUDED, MAX_GROUP_SIZE, MAX_REACH
from service.schemas.parameters import (
    ID_SCHEMA,
    INTEGER,
    MAX_K,
    NUMBER,
    Bool,
    Cosine,
    Ids,
    Options,
    Vector,
    parse_json_text,
)

MAX_RANGE: Final = 10_000  # hits of one answer
MAX_QUERIES: Final = 64  # of one search
MAX_HITS: Final = 10_000  # of all of them, and with vectors a tenth
MAX_VECTORS: Final = 1_000
MAX_OFFSET: Final = MAX_REACH - MAX_K


class CropOption(BaseModel):
    """A part of the image, in fractions of its sides."""

    model_config = ConfigDict(extra="forbid", strict=True)

    top: float = 0.0
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0


def _few_members(value: Any) -> Any:
    """Refuse an object of far too many members, each of which would be reported."""
    if isinstance(value, dict) and len(value) > len(CropOption.model_fields):
        raise ValueError(f"has no other members than {', '.join(CropOption.model_fields)}")
    return value


class QueryOptions(Options):
    """Parameters of all routes that look for items like something."""

    takes_image = True

    id: Annotated[
        str | None, Field(description="search by this stored item", json_schema_extra=ID_SCHEMA)
    ] = None
    vector: Annotated[
        Vector | None,
        BeforeValidator(parse_json_text),
        Field(description="search by this unit vector"),
    ] = None
    filter: Annotated[
        dict[str, Any] | None,
        BeforeValidator(parse_json_text),
        Field(description="{must, should, must_not} of conditions on id, label and metadata"),
    ] = None
    crop: Annotated[
        CropOption | None,
        BeforeValidator(_few_members),
        BeforeValidator(parse_json_text),
        Field(description="search by a part of the image; fractions in [0, 1]"),
    ] = None
    kind: Annotated[
        Annotated[float, Field(ge=0, le=1), NUMBER] | None,
        Field(
            description="what counts: 0 this very thing, 1 the same kind; null: as the model does"
        ),
    ] = None
    min_seq: Annotated[
        Annotated[int, Field(ge=0), INTEGER] | None,
        Field(description="wait for this write, then search"),
    ] = None

    @property
    def is_exhaustive(self) -> bool:
        """Whether the search may have to look at all items one by one."""
        return self.filter is not None


class OneQuery(Options):
    """One of several queries of a search."""

    image: str | None = None
    id: str | None = None
    vector: Vector | None = None


class SearchOptions(QueryOptions):
    """Parameters of search."""

    k: Annotated[int, Field(ge=1, le=MAX_K, description="hits to return"), INTEGER] = 10
    min_score: Annotated[Cosine | None, Field(description="least cosine similarity of a hit")] = (
        None
    )
    exact: Annotated[
        Bool, Field(description="compare with every item instead of using the search structure")
    ] = False
    with_vector: Annotated[Bool, Field(description="return each hit's vector")] = False
    offset: Annotated[
        int, Field(ge=0, le=MAX_OFFSET, description="number of best hits to skip"), INTEGER
    ] = 0
    group_by: Annotated[
        Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARS)] | None,
        Field(description="label or a metadata key: limits the hits that share its value"),
    ] = None
    group_size: Annotated[
        int, Field(ge=1, le=MAX_GROUP_SIZE, description="hits per group, at most"), INTEGER
    ] = 1
    exclude: Annotated[
        Annotated[Ids, Field(max_length=MAX_EXCLUDED, fail_fast=True)],
        BeforeValidator(parse_json_text),
        Field(default_factory=list, description="ids to leave out of the hits"),
    ]
    queries: Annotated[
        Annotated[list[Any], Field(min_length=1, max_length=MAX_QUERIES, fail_fast=True)] | None,
        BeforeValidator(parse_json_text),
        Field(description="several queries, each an object with one of image, id and vector"),
    ] = None
    exclude_self: Annotated[
        Bool, Field(description="leave out the item that the query names by its id")
    ] = False
    exclude_group: Annotated[
        Bool,
        Field(description="leave out its group too, by group_by or else by the metadata's group"),
    ] = False
    exclude_copies: Annotated[
        Bool, Field(description="leave out items with the same bytes as the query's picture")
    ] = False

    @property
    def is_exhaustive(self) -> bool:
        """Whether the search may have to look at all items one by one."""
        return self.exact or super().is_exhaustive


class RangeOptions(QueryOptions):
    """Parameters of finding everything that is near enough."""

    min_score: Annotated[Cosine, Field(description="least cosine similarity of a hit")]
    limit: Annotated[
        int, Field(ge=1, le=MAX_RANGE, description="hits to return, the best first"), INTEGER
    ] = 1000

    @property
    def is_exhaustive(self) -> bool:
        """Whether the search may have to look at all items one by one."""
        return True


class VoteOptions(QueryOptions):
    """Parameters of asking the nearest items for their labels."""

    k: Annotated[int, Field(ge=1, le=MAX_K, description="hits to count"), INTEGER] = 10
