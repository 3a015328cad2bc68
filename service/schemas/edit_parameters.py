"""The parameters of routes that change, delete and count stored items."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from index.query.counting import MAX_KEYS, MAX_VALUES
from index.query.editing import CHUNK
from index.query.groups import MAX_KEY_CHARS
from service.schemas.parameters import (
    INTEGER,
    LABEL_SCHEMA,
    Bool,
    FilterField,
    Ids,
    Options,
    parse_json_text,
)

MAX_DELETED: Final = CHUNK  # in one request; a job deletes more


class PatchOptions(Options):
    """What a patch may name; null removes."""

    label: Annotated[
        str | None, Field(description="null removes it", json_schema_extra=LABEL_SCHEMA)
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        Field(description="merged into what is there; a member that is null is removed"),
    ] = None


class DeleteOptions(Options):
    """Parameters of deleting many items."""

    ids: Annotated[
        Annotated[Ids, Field(min_length=1, max_length=MAX_DELETED, fail_fast=True)] | None,
        Field(description="ids of the items to delete"),
    ] = None
    filter: FilterField = None
    all: Annotated[Bool, Field(description="every item")] = False


class FacetOptions(Options):
    """Parameters of counting items and what they say."""

    keys: Annotated[
        Annotated[
            list[
                Annotated[
                    str,
                    Field(
                        min_length=1,
                        max_length=MAX_KEY_CHARS,
                        json_schema_extra={"pattern": r"^(?!id$)[^\u0000]+$"},
                    ),
                ]
            ],
            Field(max_length=MAX_KEYS, fail_fast=True, json_schema_extra={"uniqueItems": True}),
        ],
        BeforeValidator(parse_json_text),
        Field(default_factory=list, description="label, or keys of metadata"),
    ]
    filter: FilterField = None
    limit: Annotated[
        int,
        Field(ge=1, le=MAX_VALUES, description="values of each key, the most frequent"),
        INTEGER,
    ] = 20
