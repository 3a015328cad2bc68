"""Several queries of one search request: sources in, the hits of each in the same order out.

A query that cannot be answered fails alone. Each is a read of its own, so that those of other
clients come in between.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError, InvalidIdError, UnknownIdError
from index.items.filter import parse_filter
from service.errors import AmbiguousQueryError, ListTooLongError, MissingImageError, RequestError
from service.http.request_body import decode_image_text
from service.inference.engine import Engine
from service.inference.task import Encoded, Task
from service.request.context import RequestContext
from service.request.search_query import (
    SearchQuery,
    box_of,
    check_kind,
    make_query,
    see_write,
    stored_or_given,
)
from service.schemas.query_parameters import (
    MAX_HITS,
    MAX_QUERIES,
    MAX_VECTORS,
    OneQuery,
    SearchOptions,
)
from vision.errors import ImageError

Found = TypeVar("Found")
# What is wrong with one query; anything else ends the request.
_OF_ONE: Final = (RequestError, InvalidIdError, UnknownIdError, BadVectorsError, ImageError)


@dataclass(frozen=True, slots=True)
class _Source:
    """What one query is made of."""

    options: SearchOptions
    image: bytes | None


def asks_several(request: RequestContext) -> bool:
    """Whether a request to search, whose body has come, has several queries."""
    return len(request.images) > 1 or request.fields.get("queries") is not None


async def run_searches(
    request: RequestContext, find: Callable[[SearchQuery[SearchOptions]], Found]
) -> list[Found | Exception]:
    """Return what ``find``, called on a reading thread, finds for each query, or why it cannot.

    Raises:
        RequestError, VectorIndexError: what all the queries have in common cannot be used.
    """
    engine = request.engine
    options = SearchOptions.parse(request.fields)
    condition = parse_filter(options.filter) if options.filter is not None else None
    sources = _sources(request.images, options)
    _check_hits(len(sources), options)
    check_kind(engine, options.kind)
    await see_write(engine, options.min_seq)
    tasks = _tasks(sources)
    scans = len(sources) if options.is_exhaustive else 0
    with request.admit(tasks, others=len(sources) - len(tasks), scans=scans):
        encoded = iter(await request.encode(tasks))
        found: list[Found | Exception] = []
        for source in sources:
            try:
                if isinstance(source, Exception):
                    raise source
                vector_D = await _vector(engine, source, encoded)
                query = make_query(engine, vector_D, source.image, source.options, condition)
                search = partial(find, query)
                found.append(await request.search(search, is_exhaustive=options.is_exhaustive))
            except _OF_ONE as error:
                found.append(error)
    return found


def _check_hits(queries: int, options: SearchOptions) -> None:
    most = MAX_VECTORS if options.with_vector else MAX_HITS
    if queries * options.k > most:
        raise ListTooLongError(
            f"{queries} queries of k {options.k} may find {queries * options.k} hits; one search "
            f"has at most {MAX_HITS}, or {MAX_VECTORS} with their vectors"
        )


def _sources(images: list[bytes], options: SearchOptions) -> list[_Source | Exception]:
    """Return the source of each query, or what is wrong with it."""
    if options.id is not None or options.vector is not None:
        raise AmbiguousQueryError("send queries or several images, and no other source beside them")
    shared = options.model_copy(update={"queries": None})
    if options.queries is None:
        if len(images) > MAX_QUERIES:
            raise ListTooLongError(
                f"a search has at most {MAX_QUERIES} queries, got {len(images)} images"
            )
        return [_Source(shared, image) for image in images]
    if images:
        raise AmbiguousQueryError("send images or queries, not both: a query may have an image")
    return [_source(value, shared) for value in options.queries]


def _source(value: Any, shared: SearchOptions) -> _Source | Exception:
    try:
        one = OneQuery.parse(value)
        sources = (one.image, one.id, one.vector)
        if sources.count(None) == len(sources):
            raise MissingImageError("nothing to search by: a query has an image, an id or a vector")
        if sources.count(None) < len(sources) - 1:
            raise AmbiguousQueryError("a query has one of image, id and vector, not several")
        image = None if one.image is None else decode_image_text(one.image, name="image")
    except _OF_ONE as error:
        return error
    return _Source(shared.model_copy(update={"id": one.id, "vector": one.vector}), image)


def _tasks(sources: list[_Source | Exception]) -> list[Task]:
    """Return the images, in order."""
    return [
        Task.of(source.image, crop=box_of(source.options.crop))
        for source in sources
        if isinstance(source, _Source) and source.image is not None
    ]


async def _vector(
    engine: Engine, source: _Source, encoded: Iterator[Encoded | Exception]
) -> NDArray[np.float32]:
    if source.image is None:
        return await stored_or_given(engine, source.options)
    outcome = next(encoded)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome.vector_D
