"""The life of a request, top to bottom: check, receive, decode, encode, search, answer.

``answer`` is every request's; the route that it calls answers a search by ``run_search``. Other
routes take the same steps of the request: some encode and do not search, some write.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

from fastapi.routing import APIRoute
from starlette.responses import Response

from index.items.filter import parse_filter
from service.http.negotiation import accepts_gzip, compress_gzip
from service.inference.task import Task
from service.request.context import RequestContext
from service.request.search_query import (
    Asked,
    SearchQuery,
    box_of,
    check_kind,
    check_one_source,
    make_query,
    see_write,
    stored_or_given,
)
from service.security.authorization import network_of
from service.security.cors import SAFE_METHODS, refuse_other_sites

JSON: Final = "application/json"
JOBS: Final = "/v1/jobs"
PACKED_BYTES: Final = 32 * 2**10  # of an answer that is worth compressing
PROBES: Final = ("/livez", "/readyz", "/metrics")  # answered whatever else there is to do
Found = TypeVar("Found")


async def answer(request: RequestContext) -> Response:
    """Return the answer to a request whose headers have come.

    Raises:
        Exception: why it gets none, which ``problem_details`` makes a problem of.
    """
    # Check: where it comes from, who asks, and what for.
    early = check_origin(request)
    if early is not None:
        return early
    identify_caller(request)
    worker = request.worker
    route, parameters = worker.router.match(request.scope, request.record)

    # Receive, decode, encode, search: in the route, see below.
    with _reading_place(request, route), worker.bodies.reserve(request.caller) as request.held:
        response: Response = await route.endpoint(request, **parameters)

        # Answer.
        if len(response.body) >= PACKED_BYTES:
            await _compress(response, request)
    return response


async def run_search(
    request: RequestContext, kind: type[Asked], find: Callable[[SearchQuery[Asked]], Found]
) -> Found:
    """Return what ``find``, called on a reading thread, finds for the one query of a request.

    Raises:
        RequestError, VectorIndexError, ImageError: the request asks for nothing that can be found.
    """
    # Receive: a body is only read where there is room for the work.
    engine = await request.receive_images()

    # Check: the options and the one source of the query.
    options = kind.parse(request.fields)
    condition = parse_filter(options.filter) if options.filter is not None else None
    check_one_source(request.images, options)
    check_kind(engine, options.kind)
    await see_write(engine, options.min_seq)
    image = request.images[0] if request.images else None
    tasks = [] if image is None else [Task.of(image, crop=box_of(options.crop))]

    with request.admit(tasks, others=1 - len(tasks), scans=int(options.is_exhaustive)):
        # Decode and encode, in a batch with the images of others.
        if tasks:
            vector_D = (await request.encode_one(tasks[0])).vector_D
        else:
            vector_D = await stored_or_given(engine, options)

        # Search; the route answers with what is found.
        query = make_query(engine, vector_D, image, options, condition)
        return await request.search(partial(find, query), is_exhaustive=options.is_exhaustive)


def check_origin(request: RequestContext) -> Response | None:
    """Check that the request may come from where it does; return an answer that needs no key.

    Raises:
        RequestError: it may not, or the connection found that it is no request.
    """
    worker, scope, headers = request.worker, request.scope, request.headers
    root = worker.settings.root_path
    if root and scope["path"].startswith(root):
        _remove_prefix(root, request)
    if worker.cors is not None:
        request.extra_headers = worker.cors.headers(headers.get("origin"))
    if "refusal" in scope:  # by the connection: there is no request that could be worked on
        raise scope["refusal"]
    if worker.hosts is not None:
        worker.hosts.check(scope)
    if not scope["path"]:  # it ended without the slash to which the page's links are relative
        location = f"{root.rpartition('/')[2]}/"
        return Response(status_code=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": location})
    if worker.cors is not None:
        preflight = worker.cors.preflight(scope["method"], headers)
        if preflight is not None:
            return preflight
    if scope["method"] not in SAFE_METHODS:
        refuse_other_sites(headers, lambda: worker.proxies.site(scope), worker.cors)
    return None


def identify_caller(request: RequestContext) -> None:
    """Find out whose request it is.

    Raises:
        UnauthorizedError, ForbiddenError: they may not do this.
        TooManyRequestsError: the quota of the last minute is used up.
    """
    worker = request.worker
    if worker.authorizer is not None:
        authorization = request.headers.get("authorization")
        request.record.key = worker.authorizer.admit(request.scope, authorization)
    request.caller = request.record.key or network_of(worker.proxies.client(request.scope))


def _remove_prefix(root: str, request: RequestContext) -> None:
    """Leave of the path what stands behind ``root``; of ``root`` itself nothing."""
    path = request.scope["path"]
    if path == root or path[len(root)] == "/":
        request.scope["path"] = path[len(root) :]


def _reading_place(request: RequestContext, route: APIRoute) -> AbstractContextManager[None]:
    """Take a place for reading, until the answer is made; others take theirs with the image."""
    is_for_reading = "GET" in (route.methods or ()) or route.path.startswith(JOBS)
    if not is_for_reading or route.path in PROBES:
        return nullcontext()
    return request.worker.reading.admit(request.caller)


async def _compress(response: Response, request: RequestContext) -> None:
    """Make a long answer of JSON shorter for a client that takes it so."""
    if response.media_type != JSON or "etag" in response.headers:  # one tag is of one form
        return
    response.headers["Vary"] = "Accept-Encoding"
    if not accepts_gzip(request.headers):
        return
    response.body = await asyncio.to_thread(compress_gzip, bytes(response.body))
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(len(response.body))
