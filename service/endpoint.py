"""Handlers and pages as routes."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from service.lifecycle import Lifecycle

Handler = Callable[[Request], Awaitable[Response]]

WEB = Path(__file__).parent / "web"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # browsers keep it and ask again; without this they guess for how long they need not
    "Accept-Ranges": "none",
}


class Endpoint:
    """A handler as an ASGI application, without the error handling that Starlette puts around it; see `problems.py`."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.handle(Request(scope, receive, send))
        await response(scope, receive, send)


def bringing(handle: Handler) -> Handler:
    """The same handler for bodies that are large; their bytes count against `Bodies` while it works."""

    async def counted(request: Request) -> Response:
        with lifecycle_of(request).bodies.share() as take:
            request.scope["state"]["take_bytes"] = take
            return await handle(request)

    return counted


def get(path: str, handle: Handler) -> Route:
    return Route(path, Endpoint(handle), methods=["GET"])


def post(path: str, handle: Handler) -> Route:
    return Route(path, Endpoint(handle), methods=["POST"])


def forget_range(scope: Scope) -> None:
    """Our files are small, and a server may always send the whole (RFC 9110, section 14.2). Starlette answers a range
    that it cannot give with a text of its own."""
    scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]


class WholeFiles(StaticFiles):
    """The files of a directory, each as a whole."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        forget_range(scope)
        await super().__call__(scope, receive, send)

    def file_response(self, *args: Any, **settings: Any) -> Response:
        response = super().file_response(*args, **settings)
        response.headers.update(FILE_HEADERS)
        return response


def page(name: str) -> Handler:
    """A route for a page in `web/`."""
    files = WholeFiles(directory=WEB)

    async def send(request: Request) -> Response:
        forget_range(request.scope)
        response = await files.get_response(name, request.scope)
        response.headers.update(PAGE_HEADERS)
        return response

    return send


def lifecycle_of(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.scope["app"].lifecycle
    return lifecycle
