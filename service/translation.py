"""One picture through a translator, whatever its size: what the graph is given, and what becomes of what it gives.

A bundle of fixed size gets the whole picture, scaled with its proportions kept (Lanczos), in the middle of the bundle's
background; its answer has the bundle's own size. A bundle that takes any size gets the picture as it is, mirrored
beyond its right and lower border up to the next size that the graph takes; the answer is cropped back. What is larger
than one tile goes in tiles (`tiling.py`).
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image

from service.bundle import Bundle
from service.errors import DeadlineExceeded, GaneryError, InvalidValue, TooLarge
from service.formats import Format, as_image
from service.forms import Picture
from service.latents import fresh_seed
from service.pixels import Pixels
from service.sample import Provenance, Translated
from service.tasks.translate import Shown
from service.tiling import Tiling, rounded_up
from service.uploads import read_picture
from service.work import Work, keep


@dataclass(frozen=True)
class Translation:
    """A picture that a bundle is to translate.

    Args:
        bundle: whose task it is.
        pixels: as the graph takes them, uint8 [height, width, channels].
        came: height and width of what came.
        size: height and width of the answer.
        origin: what the answer says of itself.
        file_format: of the answer.
    """

    bundle: Bundle
    pixels: Pixels
    came: tuple[int, int]
    size: tuple[int, int]
    origin: Translated
    file_format: Format

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        content: bytes,
        *,
        seed: int | None,
        file_format: Format,
        max_pixels: int,
        admit: Callable[[int, int], None] | None = None,
    ) -> "Translation":
        """Read a picture that comes from outside, and make it what the graph takes.

        Raises:
            MalformedRequest, TooLarge, UnsupportedMediaType: see `read_picture`.
        """
        source, target = bundle.manifest.input, bundle.manifest.output
        assert source is not None
        upload = read_picture(content, max_pixels=max_pixels, background=source.background, admit=admit)
        pixels = _with_channels(upload.pixels, source.channels)
        height, width = pixels.shape[:2]
        resized = None
        if source.height is not None and source.width is not None and (height, width) != (source.height, source.width):
            pixels = letterboxed(pixels, source.height, source.width, source.background)
            resized = f"{width}x{height} -> {source.width}x{source.height}"
        origin = Translated(
            model=bundle.name,
            version=bundle.manifest.version,
            digest=bundle.manifest.digest,
            seed=seed,
            input_sha256=hashlib.sha256(content).hexdigest(),
            resized=resized,
        )
        size = (target.height or height, target.width or width)
        return cls(bundle, _extended(pixels, source.multiple_of), (height, width), size, origin, file_format)

    @property
    def is_tiled(self) -> bool:
        """Whether it is larger than a tile; else there is one work, whose result is the answer."""
        return self._tiling is not None

    @property
    def cost(self) -> int:
        """Pixels that are computed for it, those of overlaps more than once."""
        height, width = self.pixels.shape[:2]
        return height * width if self._tiling is None else self._tiling.pixels

    def works(self) -> Iterator[Work[Any]]:
        """The work to be done, in order."""
        if self._tiling is None:
            finish = ToCroppedFile(self.file_format, self.origin, self.size)
            yield self._work([self.pixels], finish)
            return
        tiles = self._tiling.cut(self.pixels)
        while group := list(islice(tiles, self._tiles_per_work)):
            yield self._work(group, keep)

    def file(self, results: Iterator[Any]) -> bytes:
        """The answer, made of the results of `works`; no more of them are taken."""
        if self._tiling is None:
            content: bytes = next(results)
            return content
        num_works = -(-len(self._tiling.boxes) // self._tiles_per_work)
        tiles = chain.from_iterable(islice(results, num_works))
        return self.file_format.encode(_cropped(self._tiling.join(tiles), self.size), self.origin)

    @cached_property
    def _tiling(self) -> Tiling | None:
        """None if the picture is not larger than a tile."""
        height, width = self.pixels.shape[:2]
        return _tiling(self.bundle, height, width)

    @cached_property
    def _tiles_per_work(self) -> int:
        assert self._tiling is not None
        batcher = self.bundle.batcher
        rows = batcher.rows_of(self._tiling.tile_pixels)
        return min(rows, -(-len(self._tiling.boxes) // batcher.runners))

    def _work(self, pictures: Sequence[Pixels], finish: Any) -> Work[Any]:
        images, target = np.stack(pictures), self.bundle.manifest.output
        rows, height, width = images.shape[:3]
        pixels = rows * (target.height or height) * (target.width or width)
        return Work(rows, pixels, Shown(images, self.origin.seed), finish, (height, width))


@dataclass(frozen=True)
class TimeLimit:
    """When an answer must begin."""

    deadline: float
    """`time.monotonic()`."""
    longest: float
    """Seconds that a request may have at most."""

    def check(self) -> None:
        """
        Raises:
            DeadlineExceeded: if it is too late already.
        """
        if monotonic() >= self.deadline:
            raise DeadlineExceeded("the deadline passed while the pictures were read; send fewer or smaller ones")

    def check_size(self, bundle: Bundle, height: int, width: int) -> None:
        """Refuse a picture of so many tiles that all runners together, idle as they may be, would not make it in time.

        A picture of one tile is always tried: it costs little.

        Raises:
            TooLarge: if it cannot be made by then.
        """
        tiling = _tiling(bundle, height, width)
        if tiling is None:
            return
        batcher = bundle.batcher
        needed = tiling.pixels * batcher.pace.at_best / batcher.runners
        left = max(0.0, self.deadline - monotonic())
        if needed > left:
            raise TooLarge(
                f"the picture is {width} x {height}, {needed:.1f} seconds of work at the best speed measured, and "
                f"{left:.1f} are left: about {round(height * width * left / needed)} pixels fit. Send a smaller one, "
                f"or allow more time: X-Deadline-Ms may be at most {self.longest * 1000:.0f}"
            )


@dataclass(frozen=True)
class ToCroppedFile:
    """Makes the file of one picture, uint8 [1, height, width, channels], of which a part is wanted."""

    file_format: Format
    origin: Provenance
    size: tuple[int, int]
    """Height and width of that part, from the top left."""

    def __call__(self, pixels: Pixels) -> bytes:
        return self.file_format.encode(_cropped(pixels[0], self.size), self.origin)


def seed_for(bundle: Bundle, seed: int | None) -> int | None:
    """The seed of a request: the one it names, or one that is drawn; None if the bundle takes none.

    Raises:
        InvalidValue: if it takes none, and one was named; or if the seed is out of range.
    """
    if bundle.manifest.latent is not None:
        return fresh_seed() if seed is None else bundle.check_seed(seed)
    if seed is not None:
        raise InvalidValue(
            f"model {bundle.name!r} takes no seed: a picture has one translation; leave seed out", pointer="/seed"
        )
    return None


def translations(
    bundle: Bundle,
    pictures: Sequence[Picture],
    *,
    seed: int | None,
    file_format: Format,
    max_pixels: int,
    time_limit: TimeLimit,
) -> list[Translation]:
    """Read pictures, all of them before anything is computed: what is wrong with one is the answer.

    Args:
        max_pixels: of all of them together.
        time_limit: for reading all of them, and for computing the first.

    Raises:
        MalformedRequest, TooLarge, UnsupportedMediaType: see `read_picture`; the message says which picture.
        DeadlineExceeded: if there is no time left.
    """
    read: list[Translation] = []
    left = max_pixels
    for index, picture in enumerate(pictures):
        time_limit.check()

        def admit(height: int, width: int, left: int = left, first: bool = not index) -> None:
            if (made := _pixels_taken(bundle, height, width)) > left:
                raise TooLarge(
                    f"the picture is {width} x {height}, {made} pixels as the model takes it; "
                    f"at most {left} are taken: send fewer, or less narrow ones"
                )
            if first:  # the answer begins with it; those after it may take their time
                time_limit.check_size(bundle, height, width)

        try:
            one = Translation.of(
                bundle, picture.content, seed=seed, file_format=file_format, max_pixels=left, admit=admit
            )
        except GaneryError as error:
            if len(pictures) > 1 or picture.name:
                name = f" ({picture.name[:100]!r})" if picture.name else ""
                spent = f", after {max_pixels - left} of {max_pixels} pixels" if index else ""
                error.place(before=f"picture {index + 1}{name}{spent}: ")
            raise
        left -= max(one.came[0] * one.came[1], _pixels_taken(bundle, *one.came))
        read.append(one)
    return read


def letterboxed(pixels: Pixels, height: int, width: int, background: tuple[int, int, int]) -> Pixels:
    """The whole picture, as large as fits with its proportions, in the middle of a background of that size."""
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    inner_height, inner_width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    inner = as_image(pixels).resize((inner_width, inner_height), Image.Resampling.LANCZOS)
    colour = Image.new("RGB", (1, 1), background).convert(inner.mode).getpixel((0, 0))
    canvas = Image.new(inner.mode, (width, height), colour)
    canvas.paste(inner, ((width - inner_width) // 2, (height - inner_height) // 2))
    boxed: Pixels = np.asarray(canvas)
    return boxed.reshape(height, width, -1)


def _tiling(bundle: Bundle, height: int, width: int) -> Tiling | None:
    """The tiles of a picture; None if it is computed in one piece."""
    source = bundle.manifest.input
    assert source is not None
    return None if source.halo is None else Tiling.of(height, width, source.halo, source.multiple_of)


def _pixels_taken(bundle: Bundle, height: int, width: int) -> int:
    """How many pixels a picture has when the graph sees it."""
    source = bundle.manifest.input
    assert source is not None
    if source.height is not None and source.width is not None:
        return source.height * source.width
    return math.prod(rounded_up(side, source.multiple_of) for side in (height, width))


def _with_channels(pixels: Pixels, channels: int) -> Pixels:
    """Grey to RGB or RGB to grey, where the graph takes the other one."""
    if pixels.shape[2] == channels:
        return pixels
    converted: Pixels = np.asarray(as_image(pixels).convert("L" if channels == 1 else "RGB"))
    return converted.reshape(*pixels.shape[:2], channels)


def _extended(pixels: Pixels, multiple_of: int) -> Pixels:
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, -height % multiple_of), (0, -width % multiple_of), (0, 0)), "reflect")


def _cropped(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return pixels[: size[0], : size[1]]
