"""Pictures for people: grids of samples and the animation made of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from service.pixels import Pixels
from training.files import written_aside

GAP = 2
MAX_FRAMES = 48
MAX_ROWS = 20
"""Classes that a sheet shows; nobody looks at more."""


def sheet(pixels: Pixels) -> Image.Image:
    """One picture of pictures [rows, columns, H, W, C], on white."""
    rows, columns, height, width, channels = pixels.shape
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            canvas[top : top + height, left : left + width] = pixels[row, column]
    return Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas)


def strips(columns: Sequence[Pixels], rows: int) -> Pixels:
    """Pictures [rows, columns, H, W, C] for `sheet`: picture i of every column [N, H, W, C] side by side, as many such
    strips in each row as there are; fewer rows if there are fewer pictures.
    """
    together = np.stack(same_channels(columns), 1)
    rows = min(rows, len(together))
    across = len(together) // rows
    return together[: rows * across].reshape(rows, across * len(columns), *together.shape[2:])


def same_channels(columns: Sequence[Pixels]) -> list[Pixels]:
    """Grey pictures become colour pictures of greys if any of the columns is in colour."""
    channels = max(column.shape[-1] for column in columns)
    return [c if c.shape[-1] == channels else np.repeat(c, channels, -1) for c in columns]


def save(image: Image.Image, path: Path) -> None:
    """Write a picture aside, then move it to its place: nobody ever reads half of one."""
    with written_aside(path) as aside:
        image.save(aside)


def animate(sheets: Sequence[Path], path: Path) -> None:
    """An animated WebP of sheets, at most `MAX_FRAMES` of them, the last one held for two seconds."""
    chosen = np.unique(np.linspace(0, len(sheets) - 1, min(len(sheets), MAX_FRAMES)).round().astype(int))
    frames = [Image.open(sheets[index]).convert("RGB") for index in chosen]
    durations = [150] * (len(frames) - 1) + [2000]
    with written_aside(path) as aside:
        frames[0].save(aside, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=60, method=4)
