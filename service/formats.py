"""Pixels to files: one function for each format, and one dict.

Settings are fixed and nothing of the moment goes in, so the same sample is the same bytes (for one build of Pillow).
Every file says what made it: PNG in the iTXt chunk `ganery` and in XMP, WebP and JPEG in XMP (see `Provenance`).
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from PIL import Image, WebPImagePlugin, features  # noqa: F401 - else the first WebP would import every plugin there is
from PIL.PngImagePlugin import PngInfo

from service.errors import NotAcceptable
from service.negotiation import quality
from service.pixels import Pixels
from service.sample import Provenance

FormatName = Literal["png", "webp", "jpeg"]

_LIBRARIES = ("pil", "zlib", "zlib_ng", "webp", "jpg", "libjpeg_turbo")
ENCODERS = hashlib.sha256(repr([features.version(name) for name in _LIBRARIES]).encode()).hexdigest()[:8]
"""Stands for the libraries that write the files: others may write other bytes for the same pixels."""


@dataclass(frozen=True)
class Format:
    """How pictures leave."""

    media_type: str
    extension: str
    encode: Callable[[Pixels, Provenance], bytes]
    """uint8 [height, width, channels], 1 or 3 channels, and where they come from, to the bytes of a file."""


def png(pixels: Pixels, origin: Provenance) -> bytes:
    """Lossless."""
    info = PngInfo()
    info.add_itxt("ganery", origin.to_json())
    info.add_itxt("XML:com.adobe.xmp", origin.to_xmp().decode("ascii"))
    return _save(pixels, "PNG", compress_level=6, pnginfo=info)


def webp(pixels: Pixels, origin: Provenance) -> bytes:
    """Lossless, usually a quarter smaller than PNG and slower to write."""
    return _save(pixels, "WEBP", lossless=True, quality=75, method=4, exact=True, xmp=origin.to_xmp())


def jpeg(pixels: Pixels, origin: Provenance) -> bytes:
    """Lossy, without chroma subsampling."""
    return _save(pixels, "JPEG", quality=95, subsampling=0, optimize=False, progressive=False, xmp=origin.to_xmp())


FORMATS: dict[FormatName, Format] = {
    "png": Format("image/png", "png", png),
    "webp": Format("image/webp", "webp", webp),
    "jpeg": Format("image/jpeg", "jpg", jpeg),
}


@dataclass(frozen=True)
class ToFile:
    """Makes the file of one picture, uint8 [1, height, width, channels]."""

    format_: Format
    origin: Provenance

    def __call__(self, pixels: Pixels) -> bytes:
        return self.format_.encode(pixels[0], self.origin)


class HasMediaType(Protocol):
    """What a choice between representations needs to know of each."""

    @property
    def media_type(self) -> str: ...


Representation = TypeVar("Representation", bound=HasMediaType)
Name = TypeVar("Name", bound=str)


def choose(representations: Mapping[Name, Representation], asked: Name | None, accept: str) -> Representation:
    """The representation that a request wants; the first one if it does not care.

    Args:
        representations: what the route can give, by the name in `format`.
        asked: member `format` of the request.
        accept: the header `Accept`, `*/*` if there is none.

    Raises:
        NotAcceptable: if `Accept` takes nothing that the route gives, or not the one in `format`.
    """
    if asked is not None:
        if quality(accept, representations[asked].media_type) == 0:
            raise NotAcceptable(
                f"format {asked!r} is {representations[asked].media_type}, which Accept: {accept[:200]} rules out; "
                "change one of them, or leave one out",
                pointer="/format",
            )
        return representations[asked]
    if accept == "*/*":
        return next(iter(representations.values()))
    best = max(representations.values(), key=lambda choice: quality(accept, choice.media_type))
    if quality(accept, best.media_type) == 0:
        choices = [choice.media_type for choice in representations.values()]
        raise NotAcceptable(
            f"Accept: {accept[:200]} takes nothing that this route makes; it makes {', '.join(choices)}",
            choices=choices,
        )
    return best


def as_image(pixels: Pixels) -> Image.Image:
    """uint8 [height, width, channels] for Pillow."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _save(pixels: Pixels, kind: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    as_image(pixels).save(stream, kind, **settings)
    return stream.getvalue()
