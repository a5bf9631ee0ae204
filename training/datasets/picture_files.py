"""Pictures out of files and archives, all decoded in the same stated way."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from training.config import RecipeError
from training.datasets.base import BACKGROUND

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are none, or only parts."""

Crop = Literal["centre", "none"]
T = TypeVar("T")

logger = logging.getLogger(__name__)


def check_size(size: int) -> None:
    """
    Raises:
        RecipeError: if no picture has this height and width.
    """
    if size < 1:
        raise RecipeError(f"size is {size}; it must be at least 1 pixel")


def picture_files(folder: Path) -> list[Path]:
    """Every file below `folder` that looks like a picture by its name, in alphabetical order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def decode(file: Path | IO[bytes], size: int, channels: int, *, crop: Crop = "centre") -> NDArray[np.uint8]:
    """uint8 [C, size, size] of an encoded picture; the arguments are those of `convert`.

    Raises:
        one of UNREADABLE: if it cannot be decoded, or not in a stated way.
    """
    return convert(upright(file), size, channels, crop=crop)


def upright(file: Path | IO[bytes]) -> Image.Image:
    """An encoded picture, turned as its EXIF data say.

    Raises:
        one of UNREADABLE: if it cannot be decoded, or its EXIF data cannot.
    """
    with Image.open(file) as opened:
        opened.load()
        try:
            return ImageOps.exif_transpose(opened)
        except Exception as error:  # Pillow raises struct.error, TypeError, AttributeError, whatever it stumbles over
            raise ValueError(f"its EXIF data are damaged ({error}); save it anew without them") from error


def convert(picture: Image.Image, size: int, channels: int, *, crop: Crop = "centre") -> NDArray[np.uint8]:
    """uint8 [C, size, size] of a picture; what is transparent shows BACKGROUND.

    Args:
        crop: how a picture that is not square becomes so: its middle is cut out, or it is refused.

    Raises:
        ValueError: if it is refused.
    """
    if crop == "none" and picture.width != picture.height:
        raise ValueError(f"is {picture.width} x {picture.height}, not square, and the recipe crops nothing")
    if picture.mode.startswith("I;16"):
        # Pillow would clip to 8 bits instead of scaling.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"has pixels of mode {picture.mode}, whose range is not known; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, BACKGROUND), picture)
    picture = picture.convert("L" if channels == 1 else "RGB")
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(size, size, channels).transpose(2, 0, 1)


def read_each(
    items: Sequence[T], read: Callable[[T], NDArray[np.uint8]], title: str
) -> Iterator[tuple[T, NDArray[np.uint8]]]:
    """Each item with what `read` makes of it; those that cannot be read are named, counted and left out."""
    refused = 0
    for item in tqdm(items, desc=f"reading {title}", unit="file", leave=False, disable=None):
        try:
            pixels = read(item)
        except UNREADABLE as error:
            refused += 1
            logger.warning("left out %s: %s", item, error)
        else:
            yield item, pixels
    if refused:
        logger.warning("%d of %d %s were left out", refused, len(items), title)
