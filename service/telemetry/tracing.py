"""OpenTelemetry traces, if asked for: a request's record in, spans at a collector out.

Spans are made when a request has ended, from its record; so tracing costs nothing while the request
runs, and nothing is imported when tracing is off.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers

from service.config import ServiceSettings
from service.errors import ServiceConfigError
from service.telemetry.request_record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

MAX_STAGES: Final = 64  # spans of one request, which may have hundreds of images
_MISSING: Final = (
    "LOOKALIKE_OTLP_ENDPOINT asks for traces, which need a package that is not installed: "
    "pip install 'lookalike[tracing]'"
)


def check_tracing(settings: ServiceSettings) -> None:
    """Check that traces can be made, if the settings ask for them.

    Raises:
        ServiceConfigError: the exporter is not installed.
    """
    if settings.otlp_endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise ServiceConfigError(_MISSING) from error


class Tracing:
    """Makes the spans of one worker, and sends them in batches on a thread of its own."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace  # noqa: PLC0415 - only when asked for
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("lookalike")
        self._propagator = TraceContextTextMapPropagator()

    def send(self, record: RequestRecord, headers: Headers) -> str | None:
        """Make the spans of a request that ends now, and return the trace's id.

        Args:
            record: of the request; its stages become spans.
            headers: of the request; ``traceparent`` says which trace it belongs to.

        Returns:
            The id, 32 hexadecimal digits; ``None`` when the request was not picked for tracing.
        """
        trace = self._api
        ahead_s = time.time() - time.perf_counter()  # of the clock that stages are measured with

        def moment(clock_s: float) -> int:
            return int((clock_s + ahead_s) * 1e9)

        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=self._propagator.extract(headers),
            kind=trace.SpanKind.SERVER,
            start_time=moment(record.started),
        )
        if not span.is_recording():
            return None
        attributes: dict[str, Any] = {
            "http.request.method": record.method,
            "http.route": record.route,
            "http.response.status_code": record.status,
            "lookalike.request_id": record.request_id,
            "lookalike.images": record.images,
        }
        if record.problem is not None:
            attributes["error.type"] = record.problem
        span.set_attributes(attributes)
        if record.status >= 500:  # noqa: PLR2004 - the first status that says the fault is ours
            span.set_status(trace.StatusCode.ERROR)
        within = trace.set_span_in_context(span)
        for stage, begun, seconds in record.stages[:MAX_STAGES]:
            part = self._tracer.start_span(stage, context=within, start_time=moment(begun))
            part.end(moment(begun + seconds))
        span.end(moment(time.perf_counter()))
        return f"{span.get_span_context().trace_id:032x}"

    def close(self) -> None:
        """Send what was not sent, and end."""
        self._provider.shutdown()


def start_tracing(settings: ServiceSettings) -> Tracing | None:
    """Return what makes traces; ``None``: the settings ask for none.

    Raises:
        ServiceConfigError: the exporter is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    check_tracing(settings)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import (  # noqa: PLC0415
        ParentBasedTraceIdRatio,
    )

    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(settings.trace_ratio),
        resource=Resource.create({SERVICE_NAME: "lookalike"}),
        shutdown_on_exit=False,  # the worker's own end does it
    )
    endpoint = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)
