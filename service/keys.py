"""Bearer keys (RFC 6750): who may call, if the service has been given a file of keys."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Unauthorized

KEY = re.compile(r"[!-~]{16,256}")
# Probes, and what holds no secret: the playground must be able to ask for a key.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/", "/docs", "/openapi.json"})
OPEN_FILES = "/web/"


class Keys:
    """The keys that are let in. Their digests only, so that nothing that prints this object prints a key."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def read(cls, file: Path) -> "Keys":
        """The keys in a file: one on each line; empty lines and those that begin with `#` are passed over.

        Ends the process if it cannot, and says nothing of what is in the file, nor its name, which may be a key by
        mistake.
        """
        try:
            lines = [line.strip() for line in file.read_text("utf-8").split("\n")]
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SystemExit(f"SERVICE_API_KEYS_FILE names a file that cannot be read: {reason}") from None
        keys = {number: line for number, line in enumerate(lines, 1) if line and not line.startswith("#")}
        for number, key in keys.items():
            if not KEY.fullmatch(key):
                raise SystemExit(
                    f"SERVICE_API_KEYS_FILE: line {number} is no key; "
                    "a key is 16 to 256 printable ASCII characters without spaces"
                )
        if not keys:
            raise SystemExit("SERVICE_API_KEYS_FILE: no key is in the file, so nobody could call the service")
        return cls(keys.values())

    def __contains__(self, key: str) -> bool:
        """In a time that tells nothing of how much of a key was right, or of which."""
        digest = _digest(key)
        # Counted, not any(): that would stop at the first.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


class KeysMiddleware:
    """Lets in who brings a key, and everybody to the open paths.

    Raises:
        Unauthorized: for everybody else, whether or not there is something at the path.
    """

    def __init__(self, app: ASGIApp, keys: Keys, metrics_need_key: bool) -> None:
        self.app = app
        self.keys = keys
        self.open_paths = OPEN_PATHS if metrics_need_key else OPEN_PATHS | {"/metrics"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope["path"]):
            came = Headers(scope=scope).get("authorization", "")
            scheme, _, key = came.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("this needs a key; send the header Authorization: Bearer KEY")
            if key.strip() not in self.keys:
                raise Unauthorized("the key that came is not one of this service's")
        await self.app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self.open_paths or path.startswith(OPEN_FILES)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("latin-1")).digest()  # as headers are decoded
