import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from service.problems import ProblemMiddleware
from service.telemetry import Metrics, TelemetryMiddleware
from service.tracing import TracingMiddleware, check_exporter, otlp_provider

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def ask(exporter):
    async def hello(request):
        request.state.model = "digits"
        return PlainTextResponse("hello")

    async def fail(request):
        raise RuntimeError("secret")

    def ask(path, **headers):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        app = Starlette(
            routes=[Route("/things/{name}", hello), Route("/fail", fail), Route("/livez", hello)],
            middleware=[
                Middleware(TelemetryMiddleware, metrics=Metrics()),
                Middleware(TracingMiddleware, provider=provider),
                Middleware(ProblemMiddleware),
            ],
        )
        return TestClient(app).get(path, headers=headers)

    return ask


def test_one_span_for_a_request(ask, exporter):
    request_id = ask("/things/1?key=not-told").headers["x-request-id"]
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /things/{name}"
    assert span.kind == SpanKind.SERVER
    assert span.parent is None
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.route": "/things/{name}",
        "http.response.status_code": 200,
        "ganery.request_id": request_id,
        "ganery.model": "digits",
    }


def test_names_are_bounded_and_probes_are_not_traced(ask, exporter):
    for path in ("/nothing/1", "/nothing/2", "/livez"):
        ask(path)
    assert [span.name for span in exporter.get_finished_spans()] == ["GET unmatched"] * 2


def test_a_failure_is_one_and_tells_no_secret(ask, exporter):
    assert ask("/fail").status_code == 500
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code == StatusCode.ERROR
    assert span.attributes["http.response.status_code"] == 500
    assert "secret" not in span.to_json()


def test_traceparent_is_honoured(ask, exporter):
    ask("/things/1", traceparent=f"00-{TRACE}-{PARENT}-01")
    ask("/things/1", traceparent=f"00-{TRACE}-{PARENT}-00")  # its caller did not sample it
    ask("/things/1", traceparent="nonsense")
    child, root = exporter.get_finished_spans()
    assert (f"{child.context.trace_id:032x}", f"{child.parent.span_id:016x}") == (TRACE, PARENT)
    assert root.parent is None


def test_the_sample_ratio_is_the_standard_variable(ask, exporter, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    ask("/things/1")
    assert not exporter.get_finished_spans()


@pytest.fixture
def collector(monkeypatch):
    """A collector on loopback; `received` is what came."""
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield received
        server.shutdown()
        thread.join()


def test_spans_arrive_before_the_service_has_stopped(serve, digits, collector):
    with serve(tracing="otlp") as client:
        assert client.post("/generate", json={"seed": 1, "class": "two"}).status_code == 200
        assert client.get("/nothing").status_code == 404
    ((path, request),) = collector
    (resource,) = request.resource_spans
    names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert path == "/v1/traces"
    assert names["service.name"] == "ganery"
    generate, nothing = resource.scope_spans[0].spans
    assert (generate.name, nothing.name) == ("POST /generate", "GET unmatched")
    assert "digits" in {attribute.value.string_value for attribute in generate.attributes}


def test_the_environments_name_wins(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    provider = otlp_provider()
    provider.shutdown()
    assert provider.resource.attributes["service.name"] == "pictures"


def test_without_the_exporter_it_is_an_end(monkeypatch):
    check_exporter()
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(SystemExit, match="needs the package opentelemetry-exporter-otlp-proto-http; install"):
        otlp_provider()
