"""Which pages of other origins may call the service from a browser (Fetch standard, section 3.3)."""

import json
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

READABLE = (
    "X-Seed", "X-Model", "X-Sample-Id", "X-Resized", "X-Count", "X-Frames", "X-Request-Id", "X-Determinism",
    "Server-Timing", "Content-Disposition", "ETag", "Retry-After", "Allow", "WWW-Authenticate",
)  # fmt: skip
SENDABLE = ("Authorization", "Content-Type", "X-Request-Id", "X-Deadline-Ms", "If-None-Match")

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"http://.*:80|https://.*:443")


def cors(origins: Sequence[str]) -> list[Middleware]:
    """The middleware for these origins; nothing if there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=SENDABLE,
            expose_headers=READABLE,
        )
    ]


def _split(origins: object) -> object:
    if not isinstance(origins, str):
        return origins
    if origins.lstrip().startswith("["):
        return json.loads(origins)
    return [origin.strip() for origin in origins.split(",") if origin.strip()]


def _checked(origin: str) -> str:
    """Exactly what browsers send, or it would never match."""
    if origin != "*" and (not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin)):
        raise ValueError(
            "an origin is scheme://host or scheme://host:port, in lower case, without a path and without the scheme's "
            "own port, for example https://example.org; or * for all"
        )
    return origin


Origins = Annotated[tuple[Annotated[str, AfterValidator(_checked)], ...], NoDecode, BeforeValidator(_split)]
"""Origins as a setting: separated by commas, or a JSON list."""
