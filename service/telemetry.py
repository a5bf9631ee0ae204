"""Request ids, metrics and the access log.

Labels are route templates, statuses and bundle names, never what a client sent: their number is bounded.
"""

import logging
import re
import secrets
from time import perf_counter
from urllib.parse import quote

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.catalog import Catalog

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499
UNLOGGED = {"/livez", "/readyz", "/metrics"}

logger = logging.getLogger(__name__)


class Metrics:
    """The service's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ganery_requests",
            "Requests answered; status 499 if the client left first.",
            ["route", "status", "model"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ganery_request_seconds", "From the request's head to the answer's end.", ["route"], registry=self.registry
        )
        self.problems = Counter(
            "ganery_problems",
            "Answers that were problems, by the name in their type.",
            ["kind", "model"],
            registry=self.registry,
        )
        self.in_progress = Gauge("ganery_requests_in_progress", "Requests being answered.", registry=self.registry)
        self.generate_seconds = Histogram(
            "ganery_generate_seconds", "Running a generator.", ["model"], registry=self.registry
        )
        self.encode_seconds = Histogram(
            "ganery_encode_seconds", "Writing pictures as files.", ["model"], registry=self.registry
        )
        self.bundle_up = Gauge(
            "ganery_bundle_up", "1 if the bundle is served, 0 if it was refused.", ["model"], registry=self.registry
        )
        self.bundle_golden = Gauge(
            "ganery_bundle_golden", "1 for what the golden samples said.", ["model", "result"], registry=self.registry
        )
        self.bundle_golden_levels = Gauge(
            "ganery_bundle_golden_levels",
            "How far this replica's golden samples are from those of the bundle, in levels of 255.",
            ["model", "statistic"],
            registry=self.registry,
        )
        self.bundle_provider = Gauge(
            "ganery_bundle_provider", "1 for what a bundle runs on.", ["model", "provider"], registry=self.registry
        )

    def describe(self, catalog: Catalog) -> None:
        """Set the gauges that say what is served."""
        for name, bundle in catalog.bundles.items():
            self.bundle_up.labels(name).set(1)
            self.bundle_golden.labels(name, bundle.golden.result).set(1)
            if bundle.golden.largest is not None and bundle.golden.mean is not None:
                self.bundle_golden_levels.labels(name, "largest").set(bundle.golden.largest)
                self.bundle_golden_levels.labels(name, "mean").set(bundle.golden.mean)
            self.bundle_provider.labels(name, bundle.generator.provider).set(1)
        for name in catalog.refused:
            self.bundle_up.labels(name).set(0)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


class TelemetryMiddleware:
    """Gives each request an id, tells it in X-Request-Id, counts, times and logs the answer.

    A client's own X-Request-Id is kept if it is 1 to 64 letters, digits, dots, dashes and underscores.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came = Headers(scope=scope).get("x-request-id", "")
        request_id = came if REQUEST_ID.fullmatch(came) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        start = perf_counter()
        try:
            with self.metrics.in_progress.track_inprogress():
                await self.app(scope, receive, send_with_id)
        finally:
            seconds = perf_counter() - start
            route = getattr(scope.get("route"), "path", "unmatched")
            model = scope["state"].get("model", "")
            self.metrics.requests.labels(route, status, model).inc()
            if kind := scope["state"].get("problem"):
                self.metrics.problems.labels(kind, model).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if route not in UNLOGGED:
                # Quoted: a decoded path may hold line breaks, and with them forged log lines.
                logger.info(
                    "%s %s %d %.1f ms %s", scope["method"], quote(scope["path"]), status, seconds * 1000, request_id
                )
