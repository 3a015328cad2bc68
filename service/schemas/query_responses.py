"""The shapes of the answers to queries; they are the contract, and /openapi.json is made from them.

They are typed dicts, which cost nothing to make: nobody checks what we just made.
"""

from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, GetPydanticSchema
from pydantic_core import core_schema
from typing_extensions import TypedDict

Vector = Annotated[
    NDArray[np.float32],
    GetPydanticSchema(lambda *_: core_schema.list_schema(core_schema.float_schema())),
]


class ModelName(TypedDict):
    """Which model answered."""

    name: str
    fingerprint: Annotated[str, Field(description="SHA-256 of all that decides the vectors")]


class Timings(TypedDict):
    """Where the time of this request went, milliseconds."""

    queue: Annotated[float, Field(description="waiting for a decoder or for the network")]
    decode: Annotated[float, Field(description="image bytes to pixels")]
    encode: Annotated[
        float,
        Field(description="the network, for the whole batch; of several images their share"),
    ]
    search: Annotated[float, Field(description="the gallery")]
    total: Annotated[float, Field(description="from the whole body read to the answer made")]


class Prediction(TypedDict):
    """One class and how probable it is."""

    label: str
    probability: Annotated[float, Field(description="calibrated, in [0, 1]")]


class WhyNot(TypedDict):
    """Why a class is not sure."""

    code: Annotated[
        Literal["far_from_all", "neighbours_differ", "not_known"],
        Field(description="not_known: the model keeps no photos to compare with"),
    ]
    detail: Annotated[str, Field(description="a sentence")]


class Named(TypedDict):
    """What an image is, and whether it is one of the things the model knows at all."""

    label: str
    probability: float
    predictions: Annotated[list[Prediction], Field(description="most probable first")]
    sure: Annotated[
        bool | None,
        Field(description="false: perhaps not one of these classes; null: it cannot be told"),
    ]
    why_not: Annotated[WhyNot | None, Field(description="null where it is sure")]


class QueryAnswer(TypedDict):
    """What every answer of a query carries, in the header X-Request-ID too."""

    request_id: str


class Classification(QueryAnswer, Named):
    """What the image is."""

    model: ModelName
    seq: Annotated[int, Field(description="newest write the gallery view had")]
    timings_ms: Timings


class Failure(TypedDict):
    """Why one of several images or items failed."""

    status: int
    code: str
    detail: str


class ClassifyResult(Named):
    """What one of several images is."""

    status: Literal[200]


class Classifications(QueryAnswer):
    """One result per image, in the order the images came."""

    model: ModelName
    seq: int
    timings_ms: Timings
    results: list[ClassifyResult | Failure]


class EmbedResult(TypedDict):
    """One image's vector."""

    status: Literal[200]
    vector: Annotated[Vector, Field(description="unit length")]


class Embeddings(QueryAnswer):
    """One result per image, in the order the images came."""

    model: ModelName
    timings_ms: Timings
    results: list[EmbedResult | Failure]


class FoundItem(TypedDict):
    """One hit; its picture is at /v1/items/{id}/image."""

    id: str
    score: Annotated[float, Field(description="cosine similarity in [-1, 1], higher is nearer")]
    label: str | None
    metadata: dict[str, Any]
    vector: NotRequired[Annotated[Vector, Field(description="with with_vector only")]]


class SearchAnswer(QueryAnswer):
    """The nearest items, best first."""

    model: ModelName
    seq: Annotated[int, Field(description="newest write this search saw")]
    timings_ms: Timings
    hits: list[FoundItem]


class SearchResultOf(TypedDict):
    """What one of several queries found, best first."""

    status: Literal[200]
    hits: list[FoundItem]


class SearchAnswers(QueryAnswer):
    """One result per query, in the order the queries came."""

    model: ModelName
    seq: Annotated[int, Field(description="newest write that all of these searches saw")]
    timings_ms: Timings
    results: list[SearchResultOf | Failure]


class RangeAnswer(SearchAnswer):
    """The items that score enough, best first, as many as were asked for."""

    total: Annotated[
        int, Field(description="items that score enough, those beyond the limit included")
    ]


class LabelShare(TypedDict):
    """One label, and how much of the neighbourhood speaks for it."""

    label: str
    share: Annotated[
        float, Field(description="in (0, 1]; nearer hits count more, the shares add up to 1")
    ]


class VoteAnswer(SearchAnswer):
    """What the nearest items say; ``hits`` are those that were counted."""

    label: Annotated[
        str | None, Field(description="of the largest share; null when no hit has a label")
    ]
    votes: Annotated[list[LabelShare], Field(description="largest share first")]
