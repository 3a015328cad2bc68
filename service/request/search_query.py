"""What a request asks to find: its image, stored item or vector in, what the gallery has out.

Every route that searches reads its query here. Shape suffix: D vector width.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError
from index.gallery import Gallery
from index.items.filter import Filter
from index.items.item import QueryItem
from service.errors import (
    AmbiguousQueryError,
    InvalidKindError,
    MissingImageError,
    NotReadyError,
)
from service.inference.engine import Engine
from service.schemas.query_parameters import CropOption, QueryOptions
from vision.image.preprocessing import CropBox
from vision.inference.query_weighting import weight_queries

MIN_SEQ_WAIT_S = 1.0  # how long a search waits for the write it must see

Asked = TypeVar("Asked", bound=QueryOptions)


@dataclass(frozen=True, slots=True)
class SearchQuery(Generic[Asked]):
    """What to look for, and where."""

    gallery: Gallery
    vector_D: NDArray[np.float32]  # unit length
    factor: float  # of its scores
    query_item: QueryItem | None  # the stored item that it was made of
    content_sha256: str | None  # of the image that it was made of
    filter: Filter | None
    options: Asked


def make_query(
    engine: Engine,
    vector_D: NDArray[np.float32],
    image: bytes | None,
    options: Asked,
    condition: Filter | None,
) -> SearchQuery[Asked]:
    """Return what to look for, given a vector (D,) that was made of ``image`` or of an item."""
    weighed_D, factor = _weighed(engine, vector_D, options.kind)
    return SearchQuery(
        gallery=engine.gallery,
        vector_D=weighed_D,
        factor=factor,
        query_item=None if options.id is None else QueryItem(options.id, vector_D),
        content_sha256=None if image is None else sha256(image).hexdigest(),
        filter=condition,
        options=options,
    )


def check_one_source(images: list[bytes], options: QueryOptions) -> None:
    """Accept a query of one image, id or vector."""
    sources = len(images) + (options.id is not None) + (options.vector is not None)
    if sources == 0:
        raise MissingImageError("nothing to search by: send an image, an id or a vector")
    if sources > 1:
        raise AmbiguousQueryError("send one of image, id and vector, not several")


def check_kind(engine: Engine, kind: float | None) -> None:
    """Accept ``kind`` of a model that has such a knob."""
    if kind is not None and engine.manifest.architecture.kind_share is None:
        raise InvalidKindError(
            "kind cannot be chosen: the vectors of this model have one part, which does not tell "
            "this very thing from the same kind; leave kind out"
        )


async def see_write(engine: Engine, min_seq: int | None) -> None:
    """Wait for the write that must be seen; that takes no place from others.

    Raises:
        NotReadyError: it has not come in time.
    """
    if min_seq is None:
        return
    if not await engine.write_waiter.wait_for(min_seq, timeout_s=MIN_SEQ_WAIT_S):
        raise NotReadyError(f"write {min_seq} has not arrived; the newest is {engine.gallery.seq}")


async def stored_or_given(engine: Engine, options: QueryOptions) -> NDArray[np.float32]:
    """Return the vector (D,) that is given, or else that of the item that is asked by."""
    if options.vector is not None:
        return _unit_vector(options.vector, width=engine.manifest.architecture.width)
    item_id = options.id
    assert item_id is not None  # there is one source
    return await engine.read(lambda: engine.gallery.vector(item_id))


def _weighed(
    engine: Engine, vector_D: NDArray[np.float32], kind: float | None
) -> tuple[NDArray[np.float32], float]:
    """Return the vector to search with, and what its scores are multiplied with."""
    weighed = weight_queries(vector_D[np.newaxis], engine.manifest.architecture, kind)
    factor = float(weighed.factors_Q[0])
    if not factor:
        raise BadVectorsError(f"the vector is zero in all that counts with kind {kind}")
    return weighed.queries_QD[0], factor


def _unit_vector(values: list[float], *, width: int) -> NDArray[np.float32]:
    vector_D = np.asarray(values, np.float64)
    if vector_D.shape != (width,):
        raise BadVectorsError(f"vector must have {width} numbers, got {len(values)}")
    length = float(np.linalg.norm(vector_D))
    if not np.isfinite(length) or length == 0:
        raise BadVectorsError("vector must have finite numbers, not all of them zero")
    return (vector_D / length).astype(np.float32)


def box_of(crop: CropOption | None) -> CropBox | None:
    """Return the part of the image that is asked for."""
    return CropBox(**crop.model_dump()) if crop is not None else None
