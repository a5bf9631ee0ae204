"""The public application: routes, and what happens around each of them. Plain ASGI; it knows nothing of BentoML."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from service.cors import cors
from service.deadline import DeadlineMiddleware
from service.keys import Keys, KeysMiddleware
from service.lifecycle import Lifecycle
from service.problems import ProblemMiddleware
from service.routes import ROUTES
from service.settings import Settings
from service.telemetry import TelemetryMiddleware

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Application(Starlette):
    """Starlette without the two layers of error handling that it puts around every request: `problems.py` is enough."""

    lifecycle: Lifecycle

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = ByPath(self.router)
        for cls, args, kwargs in reversed(self.user_middleware):
            app = cls(app, *args, **kwargs)
        return app


class ByPath:
    """Most requests name a path without parameters. Their routes are found in a dict; a router tries all patterns."""

    def __init__(self, router: Router) -> None:
        self._router = router
        routes = [route for route in router.routes if isinstance(route, Route) and not route.param_convertors]
        self._routes = {(method, route.path): route for route in routes for method in route.methods or ()}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            return self._router(scope, receive, send)
        scope["route"], scope["path_params"] = route, {}
        return route.app(scope, receive, send)


def create_app(lifecycle: Lifecycle) -> Application:
    """The application; its lifespan begins to load the bundles unless that has begun, and does not wait for them."""
    provider = _tracer_provider(lifecycle.settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lifecycle.load)
            yield
            await lifecycle.close()
            tasks.cancel_scope.cancel()
        if provider is not None:
            await anyio.to_thread.run_sync(provider.shutdown)

    app = Application(routes=ROUTES, middleware=_middleware(lifecycle, provider), lifespan=lifespan)
    app.router.redirect_slashes = False  # one address for each thing; a redirect would be an answer without a schema
    app.lifecycle = lifecycle
    return app


def _middleware(lifecycle: Lifecycle, provider: "TracerProvider | None") -> list[Middleware]:
    """Outermost first; what is switched off is not there."""
    settings = lifecycle.settings
    around = [Middleware(TelemetryMiddleware, metrics=lifecycle.metrics, access_log=settings.access_log)]
    if provider is not None:
        from service.tracing import TracingMiddleware  # noqa: PLC0415

        around.append(Middleware(TracingMiddleware, provider=provider))
    around += [*cors(settings.cors_origins), Middleware(ProblemMiddleware)]
    if settings.api_keys_file is not None:
        keys = Keys.read(settings.api_keys_file)
        around.append(Middleware(KeysMiddleware, keys=keys, metrics_need_key=settings.metrics_need_key))
    seconds, send_seconds = settings.deadline_seconds, settings.send_seconds
    return [*around, Middleware(DeadlineMiddleware, seconds=seconds, send_seconds=send_seconds)]


def _tracer_provider(settings: Settings) -> "TracerProvider | None":
    if settings.tracing is None:
        return None
    from service.tracing import otlp_provider  # noqa: PLC0415 - what is off costs nothing

    return otlp_provider()
