"""Frames to one file: one function for each format, and one dict. The same frames are the same bytes."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from PIL import Image

from service.archives import NEVER, contact_sheet
from service.formats import FORMATS, as_image
from service.pixels import Pixels
from service.sample import Several

AnimationName = Literal["gif", "webp", "sheet", "zip"]

LONGEST_GIF_FRAME = 655_350
"""Milliseconds: 16 bits of hundredths of a second."""


@dataclass(frozen=True)
class Animation:
    """How a sequence of pictures leaves."""

    media_type: str
    extension: str
    encode: Callable[[Pixels, int, Several], bytes]
    """uint8 [frames, height, width, channels], milliseconds of each frame, and where they come from."""


def gif(frames: Pixels, milliseconds: int, origin: Several) -> bytes:
    """At most 256 colours in each frame: exact for grey pictures, near for others. It repeats for ever.

    Frames that look alike, one after the other, are one that is shown for longer.
    """
    pictures = [as_image(frame) for frame in frames]
    if frames.shape[3] != 1:
        pictures = [picture.quantize(256, method=Image.Quantize.MEDIANCUT) for picture in pictures]
    # Pillow would join them too, and then fail where the sum of their times is more than the format can tell.
    runs = [list(run) for _, run in groupby(pictures, key=lambda picture: picture.convert("RGB").tobytes())]
    times = [min(len(run) * milliseconds, LONGEST_GIF_FRAME) for run in runs]
    comment = origin.to_json().encode("ascii")
    return _save_all([run[0] for run in runs], "GIF", times, comment=comment, optimize=False)


def webp(frames: Pixels, milliseconds: int, origin: Several) -> bytes:
    """Lossless. It repeats for ever, and joins frames that are the same."""
    pictures = [as_image(frame).convert("RGB") for frame in frames]
    return _save_all(pictures, "WEBP", milliseconds, lossless=True, quality=75, method=4, xmp=origin.to_xmp())


def sheet(frames: Pixels, milliseconds: int, origin: Several) -> bytes:
    """One PNG, frame after frame, row by row."""
    return FORMATS["png"].encode(contact_sheet(frames), origin)


def archive(frames: Pixels, milliseconds: int, origin: Several) -> bytes:
    """A ZIP with a PNG for each frame, which says too which of them it is."""
    digits = max(4, len(str(len(frames) - 1)))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as container:
        for index, frame in enumerate(frames):
            name = zipfile.ZipInfo(f"{index:0{digits}d}.png", NEVER.timetuple()[:6])
            container.writestr(name, FORMATS["png"].encode(frame, Several({**origin.facts, "frame": index})))
    return stream.getvalue()


ANIMATIONS: dict[AnimationName, Animation] = {
    "gif": Animation("image/gif", "gif", gif),
    "webp": Animation("image/webp", "webp", webp),
    "sheet": Animation("image/png", "png", sheet),
    "zip": Animation("application/zip", "zip", archive),
}


def _save_all(pictures: list[Image.Image], kind: str, milliseconds: int | list[int], **settings: object) -> bytes:
    first, *rest = pictures
    stream = io.BytesIO()
    first.save(stream, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0, **settings)
    return stream.getvalue()
