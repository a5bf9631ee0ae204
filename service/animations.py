"""Frames to one file: one function for each format, and one dict. The same frames are the same bytes."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from service.archives import NEVER, contact_sheet
from service.formats import FORMATS, as_image
from service.generator import Pixels
from service.sample import Provenance

AnimationName = Literal["gif", "webp", "sheet", "zip"]


@dataclass(frozen=True)
class Animation:
    """How a sequence of pictures leaves."""

    media_type: str
    extension: str
    encode: Callable[[Pixels, int, Provenance], bytes]
    """uint8 [frames, height, width, channels], milliseconds of each frame, and where they come from."""


def gif(frames: Pixels, milliseconds: int, origin: Provenance) -> bytes:
    """At most 256 colours in each frame: exact for grey pictures, near for others. It repeats for ever."""
    pictures = [as_image(frame) for frame in frames]
    if frames.shape[3] != 1:
        pictures = [picture.quantize(256, method=Image.Quantize.MEDIANCUT) for picture in pictures]
    return _save_all(pictures, "GIF", milliseconds, comment=origin.to_json().encode("ascii"), optimize=False)


def webp(frames: Pixels, milliseconds: int, origin: Provenance) -> bytes:
    """Lossless. It repeats for ever."""
    pictures = [as_image(frame).convert("RGB") for frame in frames]
    return _save_all(pictures, "WEBP", milliseconds, lossless=True, quality=75, method=4, xmp=origin.to_xmp())


def sheet(frames: Pixels, milliseconds: int, origin: Provenance) -> bytes:
    """One PNG, frame after frame, row by row."""
    return FORMATS["png"].encode(contact_sheet(frames), origin)


def archive(frames: Pixels, milliseconds: int, origin: Provenance) -> bytes:
    """A ZIP with a PNG for each frame."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as container:
        for index, frame in enumerate(frames):
            name = zipfile.ZipInfo(f"{index:04d}.png", NEVER.timetuple()[:6])
            container.writestr(name, FORMATS["png"].encode(frame, origin))
    return stream.getvalue()


ANIMATIONS: dict[AnimationName, Animation] = {
    "gif": Animation("image/gif", "gif", gif),
    "webp": Animation("image/webp", "webp", webp),
    "sheet": Animation("image/png", "png", sheet),
    "zip": Animation("application/zip", "zip", archive),
}


def _save_all(pictures: list[Image.Image], kind: str, milliseconds: int, **settings: object) -> bytes:
    first, *rest = pictures
    stream = io.BytesIO()
    first.save(stream, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0, **settings)
    return stream.getvalue()
