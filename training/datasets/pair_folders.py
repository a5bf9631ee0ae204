"""Pairs in a folder: two sub-folders with files of the same names, or files that hold both pictures side by side."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from service.manifest import DataSource
from training.datasets.base import AbstractDataset, DatasetError, Pairs, Split
from training.datasets.picture_files import (
    SUFFIXES,
    UNREADABLE,
    Crop,
    check_size,
    convert,
    picture_files,
    read_each,
    upright,
)
from training.datasets.splits import check_share, split_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairFolders(AbstractDataset):
    """`path/A/x.png` -> `path/B/x.jpg`, or `path/x.png` whose left half is the source and whose right half the target.

    The two may differ in scale, not in shape: their middles would not be of the same part. Held out is a share of the
    pairs, chosen by the hash of their path without its suffix.
    """

    path: str
    size: int
    """Height and width that every picture gets, pixels."""
    channels: Literal[1, 3] = 3
    layout: Literal["folders", "side-by-side"] = "folders"
    direction: Literal["a-to-b", "b-to-a"] = "a-to-b"
    """`b-to-a`: B, or the right half, is the source."""
    crop: Crop = "centre"
    """How a picture that is not square becomes so: its middle is cut out, or (`none`) it is refused."""
    held_out: float = 0.1
    licence: str = "unstated"

    def __post_init__(self) -> None:
        check_size(self.size)
        check_share(self.held_out)

    def bring(self, source: Path | None = None) -> Path:
        if source is not None:
            raise DatasetError("pair-folders reads the folder that the recipe's `path` names; --from does not apply")
        self._pairs()
        return Path(self.path)

    def load(self, split: Split) -> Pairs:
        pairs = {key: files for key, files in self._pairs().items() if split_of(key, self.held_out) == split}
        read = self._halves if self.layout == "side-by-side" else self._files
        both = dict(read_each(list(pairs), lambda key: read(pairs[key]), f"{split} pairs"))
        if not both:
            raise DatasetError(f"{self.path} has no readable {split} pair; held_out is {self.held_out}")
        stacked = torch.from_numpy(np.stack(list(both.values())))
        first, second = stacked[:, 0].contiguous(), stacked[:, 1].contiguous()
        sources, targets = (first, second) if self.direction == "a-to-b" else (second, first)
        return Pairs(sources, targets, tuple(both))

    def card(self, *, size: int) -> DataSource:
        return DataSource(
            name=Path(self.path).name, version="folder", licence=self.licence, homepage="local", size=size
        )

    def _pairs(self) -> dict[str, tuple[Path, ...]]:
        """The file, or the two, of every pair by key; what has no partner is named, counted and left out."""
        folder = Path(self.path)
        if not folder.is_dir():
            raise DatasetError(f"{folder} is not a folder; `path` in the recipe's [data] must name one")
        if self.layout == "side-by-side":
            pairs: dict[str, tuple[Path, ...]] = {key: (file,) for key, file in _by_key(folder).items()}
        else:
            missing = [name for name in ("A", "B") if not (folder / name).is_dir()]
            if missing:
                raise DatasetError(
                    f"{folder} has no sub-folder {' and no '.join(missing)}; pairs are expected as A/NAME and B/NAME, "
                    'or, with layout = "side-by-side", in one file each'
                )
            a, b = _by_key(folder / "A"), _by_key(folder / "B")
            alone = [*(a[key] for key in a.keys() - b.keys()), *(b[key] for key in b.keys() - a.keys())]
            for file in sorted(alone):
                logger.warning("left out %s: it has no partner", file)
            if alone:
                logger.warning("%d of %d files were left out", len(alone), len(a) + len(b))
            pairs = {key: (a[key], b[key]) for key in a if key in b}
        if not pairs:
            raise DatasetError(f"{folder} holds no pair; types read: {', '.join(sorted(SUFFIXES))}")
        return pairs

    def _files(self, files: tuple[Path, ...]) -> NDArray[np.uint8]:
        """uint8 [2, C, size, size] of two files."""
        sides, sizes = [], []
        for file in files:
            try:
                picture = upright(file)
                sides.append(convert(picture, self.size, self.channels, crop=self.crop))
            except UNREADABLE as error:
                raise ValueError(f"{file}: {error}") from error
            sizes.append(picture.size)
        if not _have_one_shape(*sizes):
            (width, height), (other_width, other_height) = sizes
            raise ValueError(f"A is {width} x {height}, B {other_width} x {other_height}; give both one shape")
        return np.stack(sides)

    def _halves(self, files: tuple[Path, ...]) -> NDArray[np.uint8]:
        """uint8 [2, C, size, size] of the left and the right half of one file."""
        whole = upright(files[0])
        if whole.width % 2:
            raise ValueError(f"is {whole.width} pixels wide, which has no two halves")
        middle = whole.width // 2
        boxes = (0, 0, middle, whole.height), (middle, 0, whole.width, whole.height)
        return np.stack([convert(whole.crop(box), self.size, self.channels, crop=self.crop) for box in boxes])


def _have_one_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) differ in scale alone, so that their middles are of the same part.

    The smaller may be off by a pixel along one side, which is what rounding does when a picture is scaled.
    """
    (width, height), (small_width, small_height) = max(one, other), min(one, other)
    return abs(width * small_height - height * small_width) <= max(width, height)


def _by_key(folder: Path) -> dict[str, Path]:
    """Files below `folder` by their path there, without suffix.

    Raises:
        DatasetError: if two differ in nothing but the suffix.
    """
    found: dict[str, Path] = {}
    for file in picture_files(folder):
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DatasetError(f"{found[key]} and {file} have the same name; which of them is meant?")
        found[key] = file
    return found
