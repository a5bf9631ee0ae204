"""The headers of a request."""

from starlette.types import Scope


def header_of(scope: Scope, name: bytes) -> str | None:
    """A header as it came, the first if it came several times; None if it did not.

    They are gone through once for each request, and not, as by Starlette's mapping, each time.

    Args:
        scope: of the request; its state keeps what was found.
        name: in lower case.
    """
    state = scope["state"]
    headers: dict[bytes, bytes] | None = state.get("headers")
    if headers is None:
        headers = state["headers"] = dict(reversed(scope["headers"]))
    value = headers.get(name)
    return None if value is None else str(value, "latin-1")
