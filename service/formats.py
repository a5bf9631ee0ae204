"""Pixels to files: one function for each format, and one dict.

Settings are fixed and nothing of the moment goes in, so the same sample is the same bytes (for one build of Pillow).
Every file says what made it: PNG in the iTXt chunk `ganery` and in XMP, WebP and JPEG in XMP (see `Sample`).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image, WebPImagePlugin  # noqa: F401 - else the first WebP would import every plugin there is
from PIL.PngImagePlugin import PngInfo

from service.errors import NotAcceptable
from service.generator import Pixels
from service.negotiation import quality
from service.sample import Sample

FormatName = Literal["png", "webp", "jpeg"]


@dataclass(frozen=True)
class Format:
    """How pictures leave."""

    media_type: str
    encode: Callable[[Pixels, Sample], bytes]
    """uint8 [height, width, channels], 1 or 3 channels, and what they were made from, to the bytes of a file."""


def png(pixels: Pixels, sample: Sample) -> bytes:
    """Lossless."""
    info = PngInfo()
    info.add_itxt("ganery", sample.to_json())
    info.add_itxt("XML:com.adobe.xmp", sample.to_xmp().decode("ascii"))
    return _save(pixels, "PNG", compress_level=6, pnginfo=info)


def webp(pixels: Pixels, sample: Sample) -> bytes:
    """Lossless, usually a quarter smaller than PNG and slower to write."""
    return _save(pixels, "WEBP", lossless=True, quality=75, method=4, exact=True, xmp=sample.to_xmp())


def jpeg(pixels: Pixels, sample: Sample) -> bytes:
    """Lossy, without chroma subsampling."""
    return _save(pixels, "JPEG", quality=95, subsampling=0, optimize=False, progressive=False, xmp=sample.to_xmp())


FORMATS: dict[FormatName, Format] = {
    "png": Format("image/png", png),
    "webp": Format("image/webp", webp),
    "jpeg": Format("image/jpeg", jpeg),
}


def choose_format(asked: FormatName | None, accept: str) -> Format:
    """The format that a request wants; PNG if it does not care.

    Args:
        asked: member `format` of the request.
        accept: the header `Accept`, `*/*` if there is none.

    Raises:
        NotAcceptable: if `Accept` takes no picture that we make, or not the one in `format`.
    """
    if asked is not None:
        if quality(accept, FORMATS[asked].media_type) == 0:
            raise NotAcceptable(
                f"format {asked!r} is {FORMATS[asked].media_type}, which Accept: {accept[:200]} rules out; "
                "change one of them, or leave one out",
                pointer="/format",
            )
        return FORMATS[asked]
    best = max(FORMATS.values(), key=lambda format_: quality(accept, format_.media_type))
    if quality(accept, best.media_type) == 0:
        choices = [format_.media_type for format_ in FORMATS.values()]
        raise NotAcceptable(
            f"Accept: {accept[:200]} takes nothing that this route makes; it makes {', '.join(choices)}",
            choices=choices,
        )
    return best


def _save(pixels: Pixels, kind: str, **settings: object) -> bytes:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()
