"""Every failure leaves as application/problem+json (RFC 9457). The one place where exceptions become answers."""

import json
import logging
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import GaneryError, MethodNotAllowed, NotFound

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)


class Cut(Exception):
    """An answer has begun and cannot be finished. Why has been told; the server has only to cut the connection."""


class ProblemMiddleware:
    """Answers exceptions with problems. A failure of ours is logged with its traceback, a client's mistake is not."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope["state"]["request_id"]
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:
            problem = _as_ganery_error(error, scope)
            if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                logger.exception("request %s failed", request_id, extra={"request_id": request_id})
            # Not the exception: its traceback would hold the scope, and the scope it, until the collector came.
            scope["state"]["problem"] = problem.kind, int(problem.status)
            if scope["state"]["begun"]:
                raise Cut(
                    f"{problem.kind}: {problem.detail}"
                ) from error  # a picture that stops half way must not look whole
            await problem_response(problem, request_id)(scope, receive, send)


def problem_response(error: GaneryError, request_id: str) -> Response:
    """The answer for an error."""
    # ASCII, so that whatever text a message quotes can be encoded.
    body = json.dumps({**error.problem(), "request_id": request_id})
    return Response(body, status_code=error.status, media_type=MEDIA_TYPE, headers=dict(error.headers))


def _as_ganery_error(error: Exception, scope: Scope) -> GaneryError:
    """Ours as it is; what Starlette's router refuses becomes one of ours; the rest is nobody's business."""
    if isinstance(error, GaneryError):
        return error
    if isinstance(error, HTTPException) and error.status_code == NotFound.status:
        return NotFound(f"nothing is at {scope['path'][:200]}; the routes stand in /openapi.json")
    if isinstance(error, HTTPException) and error.status_code == MethodNotAllowed.status:
        # Sorted, for Starlette joins a set; its static files tell no methods at all.
        allowed = (error.headers or {}).get("Allow", "GET, HEAD").split(", ")
        return MethodNotAllowed(scope["method"], allowed=", ".join(sorted(allowed)))
    return GaneryError("the service failed; its log says why")
