"""Large pictures in tiles that overlap, so that a network of limited sight makes of each what it makes of the whole.

Every tile of a picture has the same size, begins at a multiple of what the network takes, and overlaps its neighbours
by a margin: the network's halo, rounded up. What lies in the margin is computed twice, and taken from the other tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from service.pixels import Pixels

CORE = 256
"""Pixels, at least: side of what of an inner tile is not margin. A smaller one computes more of the picture twice, a
larger one takes more memory, and makes others wait longer."""


class Span(NamedTuple):
    """One side of a tile, in pixels of the picture."""

    start: int
    stop: int
    core_start: int
    """What from here to `core_stop` is the tile's own."""
    core_stop: int


def rounded_up(length: int, multiple_of: int) -> int:
    """To the next length that the network takes, in pixels."""
    return -(-length // multiple_of) * multiple_of


def tile_side(halo: int, multiple_of: int) -> int:
    """Pixels: side of the largest tile."""
    return rounded_up(CORE, multiple_of) + 2 * rounded_up(halo, multiple_of)


def spans(length: int, side: int, margin: int) -> list[Span]:
    """Tiles along one side of a picture.

    Args:
        length: of the picture, in pixels; a multiple of what the network takes, as all of these.
        side: of the largest tile.
        margin: by how much they overlap at each side.
    """
    if length <= side:
        return [Span(0, length, 0, length)]
    step = side - 2 * margin
    starts = [*range(0, length - side, step), length - side]
    borders = [0, *(start + margin for start in starts[1:]), length]
    return [Span(start, start + side, *core) for start, core in zip(starts, pairwise(borders), strict=True)]


@dataclass(frozen=True)
class Tiling:
    """The tiles of one picture, row by row.

    Args:
        height: of the picture, in pixels; a multiple of `multiple_of`.
        width: the same.
        halo: pixels; what lies further away from a place has no influence on it.
        multiple_of: what the network takes.
    """

    height: int
    width: int
    halo: int
    multiple_of: int

    @property
    def boxes(self) -> list[tuple[Span, Span]]:
        """Rows and columns of each tile."""
        side, margin = tile_side(self.halo, self.multiple_of), rounded_up(self.halo, self.multiple_of)
        rows, columns = spans(self.height, side, margin), spans(self.width, side, margin)
        return [(row, column) for row in rows for column in columns]

    @classmethod
    def of(cls, height: int, width: int, halo: int, multiple_of: int) -> "Tiling | None":
        """The tiles of a picture of any size, rounded up to what the network takes; None if one would be enough."""
        height, width = (rounded_up(side, multiple_of) for side in (height, width))
        return None if max(height, width) <= tile_side(halo, multiple_of) else cls(height, width, halo, multiple_of)

    @property
    def pixels(self) -> int:
        """Of all tiles together, their margins included."""
        return len(self.boxes) * self.tile_pixels

    @property
    def tile_pixels(self) -> int:
        """Of each tile, its margins included."""
        row, column = self.boxes[0]
        return (row.stop - row.start) * (column.stop - column.start)

    def cut(self, picture: Pixels) -> Iterator[Pixels]:
        """The tiles of a picture, uint8 [height, width, channels]; views of it."""
        for row, column in self.boxes:
            yield picture[row.start : row.stop, column.start : column.stop]

    def join(self, tiles: Iterator[Pixels]) -> Pixels:
        """The picture of which these are the tiles."""
        picture: Pixels | None = None
        for (row, column), tile in zip(self.boxes, tiles, strict=True):
            if picture is None:
                picture = np.empty((self.height, self.width, tile.shape[2]), np.uint8)
            own = tile[
                row.core_start - row.start : row.core_stop - row.start,
                column.core_start - column.start : column.core_stop - column.start,
            ]
            picture[row.core_start : row.core_stop, column.core_start : column.core_stop] = own
        assert picture is not None
        return picture
