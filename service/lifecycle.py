"""Loading, serving, draining: what the process is doing, and whether it should be sent requests."""

import asyncio
import gc
import logging
from concurrent.futures import Future
from functools import cache
from threading import Thread

import anyio
import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.arrivals import Arrivals
from service.batcher import QueueLimits
from service.bodies import Bodies
from service.catalog import Catalog
from service.decoding import Decoding
from service.engine import Engine
from service.errors import NotReady
from service.loading import engine_of, load_catalog
from service.settings import Settings, stray_variables
from service.telemetry import Metrics

CLOSE_SECONDS = 5.0
"""Most time to wait for the queues' threads. When it begins, every answer has been given, or the server has waited for
it for as long as it was told."""

logger = logging.getLogger(__name__)


class Lifecycle:
    """The state that all requests share. It begins as loading."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self.loaded = asyncio.Event()
        self.arrivals = Arrivals()
        self.decoding = Decoding()
        self.bodies = Bodies(settings.upload_memory_bytes)
        self._catalog: Catalog | None = None
        self._engine: Engine | None = None
        self._loading: Future[Catalog] | None = None

    def begin(self) -> "Future[Catalog]":
        """Begin to load the bundles, once, in a thread: probes are answered meanwhile."""
        if self._loading is None:
            self._loading = Future()
            self._engine = engine_of(self.settings, on_end=self.metrics.processes_ended.inc)
            Thread(target=self._load, args=(self._engine, self._loading), name="loading", daemon=True).start()
        return self._loading

    def _load(self, engine: Engine, loading: "Future[Catalog]") -> None:
        settings = self.settings
        for stray in stray_variables():
            logger.warning(stray)
        try:
            catalog = load_catalog(
                settings,
                engine,
                limits=QueueLimits(settings.queue_rows, settings.queue_pixels, settings.max_streams),
                observe=self.metrics.observer,
            )
        except Exception as error:  # whoever waits for it raises it
            loading.set_exception(error)
        else:
            loading.set_result(catalog)

    async def load(self) -> None:
        """Wait until the bundles are loaded, and serve them."""
        self._catalog = await asyncio.shield(asyncio.wrap_future(self.begin()))
        # What has been loaded stays. Left to the collector, it is walked again and again while requests wait.
        gc.freeze()
        gc.enable()
        # Each long answer may keep one waiting; whoever wants a page must not wait behind them.
        threads = anyio.to_thread.current_default_thread_limiter()
        threads.total_tokens += self.settings.max_streams * len(self._catalog.bundles)
        self.metrics.describe(self._catalog)
        self.loaded.set()
        logger.info("%d bundles served, %d refused", len(self._catalog.bundles), len(self._catalog.refused))

    @property
    def catalog(self) -> Catalog:
        """The bundles.

        Raises:
            NotReady: while they are being loaded.
        """
        if self._catalog is None:
            raise NotReady("bundles are being loaded; ask again in a moment")
        return self._catalog

    def check_alive(self) -> None:
        """Pass if the process should go on.

        Raises:
            NotReady: if a batch has been running for so long that only a restart can help.
        """
        for bundle in () if self._catalog is None else self._catalog.bundles.values():
            if bundle.batcher.busy_seconds > self.settings.stall_seconds:
                raise NotReady(
                    f"model {bundle.name!r} has been computing one batch for {bundle.batcher.busy_seconds:.0f} s"
                )

    async def close(self) -> None:
        """Finish what the queues hold, and end their threads; for a batch that does not come back nobody waits."""
        self.decoding.close()
        with anyio.move_on_after(CLOSE_SECONDS):
            for bundle in () if self._catalog is None else self._catalog.bundles.values():
                await anyio.to_thread.run_sync(bundle.batcher.close, abandon_on_cancel=True)
        if self._engine is not None:
            await anyio.to_thread.run_sync(self._engine.close)

    def check_ready(self) -> None:
        """Pass if requests should be sent here.

        Raises:
            NotReady: while loading or draining, and if no bundle can be served.
        """
        if self.draining:
            raise NotReady("draining: this replica is about to stop")
        if not self.catalog.bundles:
            raise NotReady(self.catalog.why_empty(), retry_after=None)


@cache
def of_this_process() -> Lifecycle:
    """The one of a process that serves, as its environment wants it."""
    return Lifecycle(Settings.from_environment(), Metrics())


class StartLoaded:
    """An ASGI application whose start-up ends when the bundles are loaded, and fails if none can be served.

    A server listens after start-up: one that takes over from another refuses nobody, and leaves the other in its place
    if it has nothing to serve.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_when_loaded(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.lifecycle.loaded.wait()
                if not self.lifecycle.catalog.bundles:
                    message = {"type": "lifespan.startup.failed", "message": self.lifecycle.catalog.why_empty()}
            await send(message)

        await self.app(scope, receive, send_when_loaded if scope["type"] == "lifespan" else send)
