"""The public application: routes, and what happens around each of them. Plain ASGI; it knows nothing of BentoML."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from service.deadline import DeadlineMiddleware
from service.lifecycle import Lifecycle
from service.problems import ProblemMiddleware, as_ganery_error
from service.routes import ROUTES
from service.telemetry import TelemetryMiddleware


def create_app(lifecycle: Lifecycle) -> Starlette:
    """The application; its lifespan begins to load the bundles, and does not wait for them."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lifecycle.load)
            yield
            await lifecycle.close()
            tasks.cancel_scope.cancel()

    app = Starlette(
        routes=ROUTES,
        middleware=[  # outermost first
            Middleware(TelemetryMiddleware, metrics=lifecycle.metrics),
            Middleware(ProblemMiddleware),
            Middleware(DeadlineMiddleware, seconds=lifecycle.settings.deadline_seconds),
        ],
        exception_handlers={HTTPException: as_ganery_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # one address for each thing; a redirect would be an answer without a schema
    app.state.lifecycle = lifecycle
    return app
