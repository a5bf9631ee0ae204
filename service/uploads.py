"""Bytes from strangers to pixels.

PNG, JPEG and WebP stills only; the first bytes decide which, not what a file is called. Grey stays one channel,
everything else becomes RGB. Transparency is composed on a background, white if nothing else is asked for; on a coloured
one grey becomes RGB. Of 16 bits the upper 8 are kept. CMYK is converted without its colour profile; no profile is
applied. The orientation in EXIF is obeyed.
"""

import io
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.errors import GaneryError, MalformedRequest, TooLarge, UnsupportedMediaType
from service.outlines import Outline, outline_jpeg, outline_png, outline_webp
from service.pixels import Pixels

UploadFormat = Literal["png", "jpeg", "webp"]
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
MAX_METADATA = 1_000_000
"""Characters: a contact sheet names each of its samples."""


@dataclass(frozen=True)
class Upload:
    """A picture that came from outside."""

    pixels: Pixels
    """[height, width, channels], 1 (grey) or 3 (RGB)."""
    format: UploadFormat
    metadata: str | None
    """PNG's text chunk `ganery`, else the XMP packet; None without either, or if it is longer than `MAX_METADATA`."""


class Reader(NamedTuple):
    """How one format is read."""

    title: str
    media_type: str
    begins: re.Pattern[bytes]
    outline: Callable[[bytes], Outline]
    # Not Image.open: it warns of bombs through state that all threads share, makes MPO of a JPEG that names further
    # pictures, and asks one reader after the other.
    decoder: type[ImageFile]


READERS: dict[UploadFormat, Reader] = {
    "png": Reader("PNG", "image/png", re.compile(rb"\x89PNG\r\n\x1a\n"), outline_png, PngImageFile),
    "jpeg": Reader("JPEG", "image/jpeg", re.compile(rb"\xff\xd8\xff"), outline_jpeg, JpegImageFile),
    "webp": Reader("WebP", "image/webp", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), outline_webp, WebPImageFile),
}


def either(words: Iterable[str]) -> str:
    """`PNG, JPEG or WebP`."""
    *first, last = words
    return f"{', '.join(first)} or {last}"


TITLES = either(reader.title for reader in READERS.values())


def read_picture(
    content: bytes, *, max_pixels: int, background: Colour = WHITE, admit: Callable[[int, int], None] | None = None
) -> Upload:
    """Decode a picture that nobody vouches for.

    Args:
        content: the file.
        max_pixels: width times height; looked at before anything is decoded.
        background: red, green and blue that show through where the picture is transparent.
        admit: is given the height and width that the file tells, before anything is decoded; what it raises is raised.

    Raises:
        MalformedRequest: if the file is empty, broken, cut short, goes on after its end, or breaks the limits of
            `outlines.py`.
        TooLarge: if it has more pixels.
        UnsupportedMediaType: if it is no PNG, JPEG or WebP, or if it is animated.
    """
    format_ = _format_of(content)
    reader = READERS[format_]
    try:
        outline = reader.outline(content)
        if outline.width * outline.height > max_pixels:
            raise TooLarge(
                f"the picture is {outline.width} x {outline.height}; at most {max_pixels} pixels are taken: "
                "send a smaller one"
            )
        if admit is not None:
            admit(outline.height, outline.width)
        picture = reader.decoder(io.BytesIO(outline.content))
        if picture.size != (outline.width, outline.height):
            raise MalformedRequest(f"the {format_} file gives two sizes")
        picture.load()
        return Upload(_pixels(_upright(picture, outline.exif), background), format_, _metadata(picture))
    except (GaneryError, MemoryError):
        raise
    except struct.error:
        raise MalformedRequest(f"the {format_} file is cut short") from None
    except Exception as error:  # decoders raise whatever the bytes lead them to
        raise MalformedRequest(f"the {format_} file is broken: {str(error)[:200]}") from None


def _format_of(content: bytes) -> UploadFormat:
    for name, reader in READERS.items():
        if reader.begins.match(content):
            return name
    if not content:
        raise MalformedRequest(f"the file is empty; send a {TITLES} picture")
    or_zip = ", or to /translate a zip of them as application/zip" if content.startswith(b"PK\x03\x04") else ""
    raise UnsupportedMediaType(f"the file begins with {content[:8]!r}; send a {TITLES} picture{or_zip}")


def _metadata(picture: ImageFile) -> str | None:
    text = picture.text.get("ganery") if isinstance(picture, PngImageFile) else None
    if text is None:
        try:
            text = picture.info.get("xmp", b"").decode()
        except (UnicodeDecodeError, AttributeError):  # a text of that name is none
            return None
    return str(text) if 0 < len(text) <= MAX_METADATA else None


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(picture: Image.Image, exif: bytes) -> Image.Image:
    turn = _TURNS.get(_orientation(exif))
    return picture if turn is None else picture.transpose(turn)


def _orientation(exif: bytes) -> int:
    """The tag Orientation, 1 (upright) without one.

    Read by hand, since Pillow reads every tag, and warns of each that is wrong: thousands of lines for one small file.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * i)
            if tag == ExifTags.Base.Orientation and kind == 3:  # a 16-bit number
                return int(value)
    except struct.error:
        pass  # a picture is whole without its EXIF
    return 1


def _pixels(picture: Image.Image, background: Colour) -> Pixels:
    transparent = picture.info.get("transparency")
    if isinstance(transparent, str):  # a text of that name is none
        transparent = None
        del picture.info["transparency"]
    on_grey = len(set(background)) == 1
    if picture.mode == "I;16":
        values = np.asarray(picture)
        pixels = (values >> 8).astype(np.uint8)[:, :, None]
        if transparent is not None:
            pixels = pixels if on_grey else pixels.repeat(3, 2)
            pixels[values == transparent] = background[: pixels.shape[2]]
        return pixels
    see_through = picture.has_transparency_data
    mode = "L" if picture.mode in ("1", "L", "LA") and (on_grey or not see_through) else "RGB"
    if see_through:
        layer = picture.convert("RGBA")
        picture = Image.new(mode, layer.size, background[0] if mode == "L" else background)
        picture.paste(layer.convert(mode), mask=layer.getchannel("A"))
    pixels = np.asarray(picture.convert(mode))
    return pixels[:, :, None] if mode == "L" else pixels
