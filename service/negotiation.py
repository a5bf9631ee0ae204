"""The header `Accept` (RFC 9110, section 12.5.1)."""

from functools import lru_cache


@lru_cache(maxsize=256)  # clients send few different ones, and many times
def quality(accept: str, media_type: str) -> float:
    """How welcome a media type is: 0 (refused) to 1. The most specific range that matches decides.

    Ranges that are not well formed are passed over; parameters other than `q` are ignored.
    """
    found = _ranges(accept)
    kind = media_type.split("/", maxsplit=1)[0]
    for range_ in (media_type, f"{kind}/*", "*/*"):
        if range_ in found:
            return found[range_]
    return 0.0


@lru_cache(maxsize=256)
def _ranges(accept: str) -> dict[str, float]:
    return {range_: q for range_, q in map(_parse, accept.split(",")) if q is not None}


def _parse(element: str) -> tuple[str, float | None]:
    """A range and its q, None if that is no number from 0 to 1."""
    range_, *parameters = (part.strip().lower() for part in element.split(";"))
    q = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                q = float(value)
            except ValueError:
                return range_, None
    return range_, q if 0 <= q <= 1 else None
