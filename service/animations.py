"""Frames to one file: one function for each format, and one dict. The same frames are the same bytes."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import Any, Literal

import numpy as np
from PIL import Image

from service.archives import Zip, contact_sheet, zip_of
from service.formats import FORMATS, as_image
from service.interpolation import Interpolation
from service.pixels import Pixels
from service.sample import Several
from service.work import keep

AnimationName = Literal["gif", "webp", "sheet", "zip"]

LONGEST_GIF_FRAME = 655_350
"""Milliseconds: 16 bits of hundredths of a second."""


@dataclass(frozen=True)
class Animation:
    """How a sequence of pictures leaves."""

    media_type: str
    extension: str
    write: Callable[[Iterable[Any], Interpolation, int], Iterator[bytes]]
    """The file's bytes from what has become of the pieces, and the milliseconds of each frame."""
    packing: Callable[[Interpolation, range], Callable[[Pixels], Any]] = lambda way, indices: keep
    """What turns the pixels of a piece, [frames, height, width, channels], into its part, in another process; given the
    indices of these frames."""
    whole: bool = True
    """Whether all frames must be there before the first byte."""


def gif(frames: Pixels, milliseconds: int, origin: Several) -> bytes:
    """At most 256 colours in each frame: exact for grey pictures, near for others. It repeats for ever, and tells times
    in hundredths of a second.

    Frames that look alike, one after the other, are one that is shown for longer.
    """
    pictures = [as_image(frame) for frame in frames]
    if frames.shape[3] != 1:
        pictures = [picture.quantize(256, method=Image.Quantize.MEDIANCUT) for picture in pictures]
    # Pillow would join them too, and then fail where the sum of their times is more than the format can tell.
    runs = [list(run) for _, run in groupby(pictures, key=lambda picture: picture.convert("RGB").tobytes())]
    times = [min(round(len(run) * milliseconds, -1), LONGEST_GIF_FRAME) for run in runs]
    comment = origin.to_json().encode("ascii")
    return _save_all([run[0] for run in runs], "GIF", times, comment=comment, optimize=False)


def webp(frames: Pixels, milliseconds: int, origin: Several) -> bytes:
    """Lossless. It repeats for ever, and joins frames that are the same."""
    pictures = [as_image(frame).convert("RGB") for frame in frames]
    return _save_all(pictures, "WEBP", milliseconds, lossless=True, quality=75, method=4, xmp=origin.to_xmp())


def sheet(frames: Pixels, milliseconds: int, origin: Several) -> bytes:
    """One PNG, frame after frame, row by row."""
    return FORMATS["png"].encode(contact_sheet(frames), origin)


def archive(pieces: Iterable[list[bytes]], way: Interpolation, milliseconds: int) -> Iterator[bytes]:
    """A ZIP with a PNG for each frame, which says too between which points it lies."""
    digits = max(4, len(str(len(way) - 1)))
    return zip_of((f"{index:0{digits}d}.png", file) for index, file in enumerate(chain.from_iterable(pieces)))


def _files(way: Interpolation, indices: range) -> Callable[[Pixels], list[bytes]]:
    return partial(_encode_each, [way.origin_of(index) for index in indices])


def _encode_each(origins: list[Several], frames: Pixels) -> list[bytes]:
    return [FORMATS["png"].encode(frame, origin) for frame, origin in zip(frames, origins, strict=True)]


def _at_once(encode: Callable[[Pixels, int, Several], bytes]) -> Callable[..., Iterator[bytes]]:
    """`Animation.write` of a format that needs all frames: [frames, height, width, channels]."""

    def write(pieces: Iterable[Pixels], way: Interpolation, milliseconds: int) -> Iterator[bytes]:
        yield encode(np.concatenate(list(pieces)), milliseconds, way.origin)

    return write


ANIMATIONS: dict[AnimationName, Animation] = {
    "gif": Animation("image/gif", "gif", _at_once(gif)),
    "webp": Animation("image/webp", "webp", _at_once(webp)),
    "sheet": Animation("image/png", "png", _at_once(sheet)),
    "zip": Animation(Zip.media_type, Zip.extension, archive, _files, whole=False),
}


def _save_all(pictures: list[Image.Image], kind: str, milliseconds: int | list[int], **settings: object) -> bytes:
    first, *rest = pictures
    stream = io.BytesIO()
    first.save(stream, kind, save_all=True, append_images=rest, duration=milliseconds, loop=0, **settings)
    return stream.getvalue()
