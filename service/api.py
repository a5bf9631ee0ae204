"""The BentoML service, and the only file that knows of BentoML: it starts, hosts and stops the application."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING

import bentoml
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from service.keys import Keys
from service.logs import configure_logging
from service.settings import Settings

if TYPE_CHECKING:
    from service.app import Application

settings = Settings.from_environment()
configure_logging(settings.log_format, settings.log_level)

# BentoML's parent process imports this file before it starts a worker. What ends only the worker would have it started
# again and again.
if settings.api_keys_file is not None:
    Keys.read(settings.api_keys_file)
if settings.tracing is not None:
    from service.tracing import check_exporter

    check_exporter()


@cache
def application() -> "Application":
    """Our application. Built on demand: BentoML's parent process imports this file too, and needs none of it."""
    from service.app import create_app  # noqa: PLC0415
    from service.lifecycle import of_this_process  # noqa: PLC0415

    return create_app(of_this_process())


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Ours, in the hands of BentoML, which knows the lifespans of the applications mounted into it."""
    async with application().router.lifespan_context(application()):
        yield


class EveryPath:
    """Gives every HTTP request to our application, BentoML's own routes included, so that all errors look alike."""

    def __init__(self, bentoml_app: ASGIApp) -> None:
        self.bentoml_app = bentoml_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (application() if scope["type"] == "http" else self.bentoml_app)(scope, receive, send)


@bentoml.asgi_app(Starlette(lifespan=lifespan))
@bentoml.service(
    name="Ganery",
    workers=1,  # replicas scale; a second worker would be a second copy of every bundle
    # Ours answers first, with a problem; this one is for a request that slips past it.
    traffic={"timeout": settings.deadline_seconds + 5},
    # Ours instead: BentoML's label is the raw path, without bound.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Ganery:
    """Pictures from generators: one seed, one picture."""

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    def drain_on_sigterm(self) -> None:
        """On SIGTERM fail /readyz for a while, then let the server stop; it answers the requests it has."""
        stop = signal.getsignal(signal.SIGTERM)
        loop = asyncio.get_running_loop()

        def drain(signum: int, frame: FrameType | None) -> None:
            application().lifecycle.draining = True
            if callable(stop):
                loop.call_soon_threadsafe(loop.call_later, settings.drain_seconds, stop, signum, frame)

        signal.signal(signal.SIGTERM, drain)


Ganery.add_asgi_middleware(EveryPath)  # type: ignore[attr-defined]  # the decorator has made it a Service


def hosted(*, when_loaded: bool = False) -> ASGIApp:
    """The service for another host than `bentoml serve`: HTTP comes to our application, the lifespan goes to BentoML.

    What BentoML puts around every request costs more than all that we do with it, and nothing of it is switched on.

    Args:
        when_loaded: the lifespan starts with something to serve, or fails, instead of loading while it serves.
    """
    host: ASGIApp = EveryPath(Ganery.to_asgi())  # type: ignore[attr-defined]
    if when_loaded:
        from service.lifecycle import StartLoaded  # noqa: PLC0415

        host = StartLoaded(host, application().lifecycle)
    return host
