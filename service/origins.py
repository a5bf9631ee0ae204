"""Origins of pages, as a setting names them."""

import json
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"http://.*:80|https://.*:443")


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
