"""The ASGI application of a worker: a connection's events in, answers and reports out.

It stands before everything BentoML would route, so that only the routes of the contract are
reachable. Written as plain ASGI, because it runs for every request.
"""

import asyncio
import logging
import time
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.request.context import RequestContext
from service.request.lifecycle import answer
from service.request.worker_context import WorkerContext

logger = logging.getLogger("lookalike.request")

_QUIET: Final = ("/livez", "/readyz", "/metrics")  # not worth a log line each time
CLIENT_WENT_AWAY: Final = 499  # as nginx has it: nothing could be answered any more


class Gateway:
    """Answers every HTTP request as ``worker`` does, which is there before the server listens.

    ``inner``, BentoML's own application, only gets the life-cycle events; a web socket is refused.
    """

    def __init__(self, worker: WorkerContext | None = None) -> None:
        self.inner: ASGIApp | None = None
        self.worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] == "lifespan":
            assert self.inner is not None  # BentoML made it, and calls this
            await self.inner(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        assert self.worker is not None
        await serve(RequestContext(scope, receive, send, self.worker))


async def serve(request: RequestContext) -> None:
    """Answer a request, be it with what went wrong, and report it."""
    request.worker.metrics.in_progress += 1
    try:
        response = await answer(request)
        await response(request.scope, request.receive, request.send)
    except asyncio.CancelledError:
        refusal = request.scope.get("refusal")
        task = asyncio.current_task()
        if refusal is None or request.record.status or task is None:
            raise
        task.uncancel()  # a deadline ended the work, and the client is still there
        await request.fail(refusal)(request.scope, request.receive, request.send)
    except Exception as error:
        if request.record.status:  # too late for another answer; the server closes the connection
            raise
        await request.fail(error)(request.scope, request.receive, request.send)
    finally:
        _report(request)


def _report(request: RequestContext) -> None:
    worker, record = request.worker, request.record
    record.seconds = time.perf_counter() - record.started
    record.status = record.status or CLIENT_WENT_AWAY
    if not record.route:  # it was refused before it got there
        record.route = worker.router.template(request.scope["path"], record.method) or "none"
    worker.metrics.in_progress -= 1
    worker.metrics.count_request(record)
    if record.route in _QUIET:
        return
    trace_id = None
    if worker.tracing is not None:
        trace_id = worker.tracing.send(record, request.headers)
    if worker.log is None or not logger.isEnabledFor(logging.INFO):
        return
    # Not through logger.info, which walks the stack and makes a record of twenty fields.
    line = {
        "time": time.time(),
        "level": "info",
        "logger": logger.name,
        **record.log_fields(worker=worker.number),
    }
    if trace_id is not None:
        line["trace_id"] = trace_id
    worker.log.put(line)
