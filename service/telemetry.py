"""Request ids, metrics and the access log.

Labels are route templates, statuses and bundle names, never what a client sent: their number is bounded.
"""

import logging
import random
import re
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import get_args
from urllib.parse import quote

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.batcher import Observer, Reason
from service.catalog import Catalog
from service.headers import header_of
from service.jobs import Priority
from service.settings import AccessLog

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499
MAX_PATH = 200
"""Characters of a path in a log line."""
ROUTINE = {"/livez", "/readyz", "/metrics"}
"""Routes that are asked for every few seconds, and always the same: neither logged nor traced."""

logger = logging.getLogger(__name__)


class Metrics:
    """The service's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # when each series began, as one more series each
        self.requests = Counter(
            "ganery_requests",
            "Requests answered; status 499 if the client left before the end.",
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
        self.pictures = Counter("ganery_pictures", "Pictures computed.", ["model"], registry=self.registry)
        self.batch_rows = Counter(
            "ganery_batch_rows",
            "Rows computed; padding keeps a fixed batch size.",
            ["model", "kind"],
            registry=self.registry,
        )
        self.batches = Counter("ganery_batches", "Runs of a graph.", ["model"], registry=self.registry)
        self.compute_seconds = Histogram(
            "ganery_compute_seconds", "Running the graph once.", ["model"], registry=self.registry
        )
        self.encode_seconds = Histogram(
            "ganery_encode_seconds", "Making files of what one run gave.", ["model"], registry=self.registry
        )
        self.queue_seconds = Histogram(
            "ganery_queue_seconds", "Waiting for a runner.", ["model", "priority"], registry=self.registry
        )
        self.rejections = Counter(
            "ganery_rejections",
            "Work that was not computed: the queue was full, its deadline could not be kept, or its client had gone.",
            ["model", "reason"],
            registry=self.registry,
        )
        self.processes_ended = Counter(
            "ganery_processes_ended",
            "Processes that computed and ended by themselves, or were killed; others took their places.",
            registry=self.registry,
        )
        self.queue_rows = Gauge("ganery_queue_rows", "Rows waiting for a runner.", ["model"], registry=self.registry)
        self.queue_wait = Gauge(
            "ganery_queue_wait_seconds",
            "How long a row that came now would wait, at the speed measured: the signal to scale by.",
            ["model"],
            registry=self.registry,
        )
        self.bundle_determinism = Gauge(
            "ganery_bundle_determinism",
            "1 for how rows are kept independent of their batch.",
            ["model", "determinism"],
            registry=self.registry,
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
            self.bundle_provider.labels(name, bundle.measured.provider).set(1)
            self.bundle_determinism.labels(name, bundle.measured.determinism).set(1)
            self.queue_rows.labels(name).set_function(partial(getattr, bundle.batcher, "waiting"))
            self.queue_wait.labels(name).set_function(partial(getattr, bundle.batcher, "wait_seconds"))
        for name in catalog.refused:
            self.bundle_up.labels(name).set(0)

    def observer(self, model: str) -> Observer:
        """Who counts what happens in a bundle's queue."""
        return QueueObserver(self, model)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


class QueueObserver(Observer):
    """Counts what happens in the queue of one bundle; its series exist from the start, at zero."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._pictures = metrics.pictures.labels(model)
        self._batches = metrics.batches.labels(model)
        self._rows = {kind: metrics.batch_rows.labels(model, kind) for kind in ("real", "padding")}
        self._compute = metrics.compute_seconds.labels(model)
        self._encode = metrics.encode_seconds.labels(model)
        self._queue = {priority: metrics.queue_seconds.labels(model, priority) for priority in get_args(Priority)}
        self._rejections = {reason: metrics.rejections.labels(model, reason) for reason in get_args(Reason)}

    def batch(self, rows: int, padding: int, compute: float, encode: float) -> None:
        self._pictures.inc(rows)
        self._batches.inc()
        self._rows["real"].inc(rows)
        self._rows["padding"].inc(padding)
        self._compute.observe(compute)
        self._encode.observe(encode)

    def waited(self, priority: Priority, seconds: float) -> None:
        self._queue[priority].observe(seconds)

    def rejected(self, reason: Reason) -> None:
        self._rejections[reason].inc()


class TelemetryMiddleware:
    """Gives each request an id, tells it in X-Request-Id, counts, times and logs the answer.

    Server-Timing tells the milliseconds until the answer began, and those of the phases that a handler has left in the
    state as `timings`: pairs of a name and seconds.

    A client's own X-Request-Id is kept if it is 1 to 64 letters, digits, dots, dashes and underscores.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, access_log: AccessLog = "failures") -> None:
        self.app = app
        self.metrics = metrics
        self._log_all = access_log == "all"
        self._series: dict[tuple[str, int, str], tuple[Counter, Histogram]] = {}
        self._in_progress = 0
        metrics.in_progress.set_function(lambda: self._in_progress)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(scope)
        state["begun"] = False
        status, ended = CLIENT_GONE, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status, state["begun"] = message["status"], True
                timings = state.get("timings", ())
                phases = "".join([f"{name};dur={seconds * 1000:.1f}, " for name, seconds in timings])
                timing = f"{phases}total;dur={(perf_counter() - start) * 1000:.1f}"
                message["headers"].extend(((b"x-request-id", request_id.encode()), (b"server-timing", timing.encode())))
                await send(message)
            else:
                await send(message)
                ended = not message.get("more_body", False)

        start = perf_counter()
        try:
            self._in_progress += 1
            await self.app(scope, receive, send_with_id)
        finally:
            self._in_progress -= 1
            seconds = perf_counter() - start
            problem: tuple[str, int] | None = state.get("problem")
            if not ended:  # it was cut, whatever had been said when it began
                status = CLIENT_GONE if problem is None else problem[1]
            route = getattr(scope.get("route"), "path", "unmatched")
            model = state.get("model", "")
            key = route, status, model
            requests, timer = self._series.get(key) or self._new_series(*key)
            requests.inc()
            timer.observe(seconds)
            if problem is not None:
                self.metrics.problems.labels(problem[0], model).inc()
            if (self._log_all or status >= HTTPStatus.BAD_REQUEST) and route not in ROUTINE:
                # Quoted: a decoded path may hold line breaks, and with them forged log lines.
                method, path, milliseconds = scope["method"], quote(scope["path"][:MAX_PATH]), round(seconds * 1000, 1)
                logger.info(
                    "%s %s %d %.1f ms %s",
                    method,
                    path,
                    status,
                    milliseconds,
                    request_id,
                    extra={
                        "request_id": request_id,
                        "method": method,
                        "route": route,
                        "status": status,
                        "milliseconds": milliseconds,
                        "model": model,
                    },
                )

    def _new_series(self, route: str, status: int, model: str) -> tuple[Counter, Histogram]:
        """Those of such requests. Kept: finding them in the registry costs as much as counting in them."""
        series = self.metrics.requests.labels(route, status, model), self.metrics.seconds.labels(route)
        self._series[route, status, model] = series
        return series


def _request_id(scope: Scope) -> str:
    came = header_of(scope, b"x-request-id")
    if came is not None and REQUEST_ID.fullmatch(came):
        return came
    # No secret: an id need not be hard to guess, and the system's random numbers can cost more than all the rest.
    return f"{random.getrandbits(64):016x}"
