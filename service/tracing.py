"""One OpenTelemetry span for each request, exported by OTLP over HTTP. Imported only if a setting asks for it.

Where spans go and how many are sampled say the standard variables OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER,
OTEL_SERVICE_NAME and their kin.
"""

from importlib.util import find_spec

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__
from service.telemetry import ROUTINE


def check_exporter() -> None:
    """End the process if the exporter, which is an extra, is not installed."""
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise SystemExit(
            "SERVICE_TRACING=otlp needs the package opentelemetry-exporter-otlp-proto-http; "
            "install the service with its extra `tracing`, or unset the variable"
        )


def otlp_provider() -> TracerProvider:
    """Exports in the background, in batches; `shutdown()` sends what is left."""
    check_exporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    ours = Resource.create({"service.name": "ganery", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))  # the environment's name wins
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class TracingMiddleware:
    """A span for each request but those for probes and metrics, below the one that `traceparent` names.

    It is called after the route's template, so that their number is bounded. OpenTelemetry's own ASGI middleware names
    spans by the raw path, as the template is not known yet when it asks, and makes several for each request.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self.app = app
        self.tracer = provider.get_tracer("ganery", __version__)
        self.propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ROUTINE:
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        with self.tracer.start_as_current_span(
            method,
            context=self.propagator.extract(Headers(scope=scope)),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "ganery.request_id": scope["state"]["request_id"]},
        ) as span:

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self.app(scope, receive, send_and_note)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
                if model := scope["state"].get("model"):
                    span.set_attribute("ganery.model", model)
