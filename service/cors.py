"""Which pages of other origins may call the service from a browser (Fetch standard, section 3.3)."""

from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

READABLE = (
    "X-Seed", "X-Model", "X-Sample-Id", "X-Resized", "X-Count", "X-Frames", "X-Request-Id", "X-Determinism",
    "Server-Timing", "Content-Disposition", "ETag", "Retry-After", "Allow", "WWW-Authenticate",
)  # fmt: skip
SENDABLE = ("Authorization", "Content-Type", "X-Request-Id", "X-Deadline-Ms", "If-None-Match")


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
