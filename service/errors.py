"""What can go wrong, drawn once: each class is one HTTP status.

GaneryError
├── MalformedRequest        400
├── Unauthorized            401
├── NotFound                404
│   └── UnknownModel
├── MethodNotAllowed        405
├── NotAcceptable           406
├── RequestTimeout          408
├── WrongTask               409
├── TooLarge                413
├── UnsupportedMediaType    415
├── InvalidValue            422
│   └── InvalidLatent
├── Overloaded              429
├── HeadTooLarge            431
├── ModelFailure            500
│   ├── InvalidBundle
│   └── NonFiniteOutput
├── NotReady                503
│   └── Stopping
└── DeadlineExceeded        504

Domain code raises these; `problems.py` translates once, to application/problem+json (RFC 9457).
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Literal

MAX_KEY = 200
"""Characters of a key that came with a request, and is told."""


def json_pointer(path: Iterable[int | str]) -> str:
    """The JSON pointer (RFC 6901) to the member that these keys and indices lead to; of a long key, its beginning."""
    return "".join("/" + str(key)[:MAX_KEY].replace("~", "~0").replace("/", "~1") for key in path)


def first_line(error: BaseException) -> str:
    """What an exception says, without the pages that some libraries add."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class GaneryError(Exception):
    """A failure whose message says what came, what is allowed and what to do."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, *, pointer: str | None = None, choices: Sequence[str | int] | None = None) -> None:
        """
        Args:
            detail: one or two sentences for the person who made the request.
            pointer: JSON pointer (RFC 6901) to the member of the request that is wrong.
            choices: the values that would have been right.
        """
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.choices = None if choices is None else list(choices)

    @property
    def kind(self) -> str:
        """Stable, machine-readable name of the problem, for example `unknown-model`."""
        name = type(self).__name__
        return "".join(f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))

    def place(self, *, before: str = "", pointer: str | None = None) -> None:
        """Say where in the request it is, which the code that raised it did not know.

        Args:
            before: begins the detail from now on.
            pointer: replaces the one to a part's member; None leaves it.
        """
        self.detail = before + self.detail
        self.args = (self.detail,)
        if pointer is not None:
            self.pointer = pointer

    def problem(self) -> dict[str, Any]:
        """The members of the problem document, without those that are absent."""
        members: dict[str, Any] = {
            "type": f"urn:ganery:problem:{self.kind}",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
        }
        if self.pointer is not None:
            members["pointer"] = self.pointer
        if self.choices is not None:
            members["choices"] = self.choices
        return members


class MalformedRequest(GaneryError):
    """The request cannot be read at all: broken JSON, a missing body."""

    status = HTTPStatus.BAD_REQUEST


class Unauthorized(GaneryError):
    """The route needs a key, and none came, or not one of the service's."""

    status = HTTPStatus.UNAUTHORIZED
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class NotFound(GaneryError):
    """Nothing is there."""

    status = HTTPStatus.NOT_FOUND


class UnknownModel(NotFound):
    """No bundle of that name is being served."""


class MethodNotAllowed(GaneryError):
    """The route exists, the method does not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, method: str, *, allowed: str) -> None:
        """
        Args:
            method: the one that came.
            allowed: the route's methods as the header `Allow` has them, for example `GET, HEAD`.
        """
        super().__init__(f"method {method} is not allowed here; allowed: {allowed}")
        self.headers = {"Allow": allowed}


class NotAcceptable(GaneryError):
    """`Accept` and `format` name no encoding that the route can give, or they clash."""

    status = HTTPStatus.NOT_ACCEPTABLE


class RequestTimeout(GaneryError):
    """The body came too slowly, or stopped coming."""

    status = HTTPStatus.REQUEST_TIMEOUT
    headers: Mapping[str, str] = {"Connection": "close"}  # what is still to come would be taken for the next request


class WrongTask(GaneryError):
    """The bundle does something else than the route asks for."""

    status = HTTPStatus.CONFLICT


class TooLarge(GaneryError):
    """More bytes, pixels or pictures than the service takes, or than it can make before the deadline."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedMediaType(GaneryError):
    """The body is of a type that the route does not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class InvalidValue(GaneryError):
    """The request can be read, but a value in it is out of range."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidLatent(InvalidValue):
    """A seed or latent outside its scheme's range, or of the wrong shape."""


class Overloaded(GaneryError):
    """More is waiting than can be answered in time; the same request succeeds later."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    headers: Mapping[str, str] = {"Retry-After": "1"}

    def __init__(
        self, detail: str, *, retry_after: int, reason: Literal["queue_full", "deadline"] = "queue_full"
    ) -> None:
        """
        Args:
            detail: what waits.
            retry_after: whole seconds until what waits now will be done, at the speed measured.
            reason: for the metrics: there is no room, or it would come too late.
        """
        super().__init__(f"{detail}; ask again in {retry_after} s")
        self.reason = reason
        self.headers = {"Retry-After": str(retry_after)}


class HeadTooLarge(GaneryError):
    """The request's line and headers are longer than any that are needed here."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class ModelFailure(GaneryError):
    """The generator failed; the request was good."""


class InvalidBundle(ModelFailure):
    """A bundle on disk is not what its manifest says, or not what may be served."""


class NonFiniteOutput(ModelFailure):
    """The generator computed NaN or infinity where a picture should be."""


class NotReady(GaneryError):
    """Still loading, already draining, or the bundle that was asked for has been refused, or rests."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, *, retry_after: int | None = 1) -> None:
        """
        Args:
            detail: what is missing.
            retry_after: whole seconds until it may be there; None if somebody has to mend something first.
        """
        super().__init__(detail)
        if retry_after is not None:
            self.headers = {"Retry-After": str(retry_after)}


class Stopping(NotReady):
    """This replica takes no more work."""


class DeadlineExceeded(GaneryError):
    """The answer would have come too late."""

    status = HTTPStatus.GATEWAY_TIMEOUT
