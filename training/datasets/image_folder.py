"""A folder of pictures with one sub-folder per class is a data set too."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from service.manifest import DataSource
from training.datasets.base import AbstractDataset, DatasetError, Pictures, Split
from training.datasets.picture_files import SUFFIXES, Crop, check_size, decode, picture_files, read_each
from training.datasets.splits import check_share, split_of


@dataclass(frozen=True)
class ImageFolder(AbstractDataset):
    """`path/<class>/*.png`; classes in alphabetical order. All pictures are held in memory as bytes.

    Held out is a share of the files, chosen by the hash of their path below the folder, so that adding a file moves no
    other from one split to the other.
    """

    path: str
    size: int
    """Height and width that every picture gets, pixels."""
    channels: Literal[1, 3]
    crop: Crop = "centre"
    """How a picture that is not square becomes so: its middle is cut out, or (`none`) it is refused."""
    held_out: float = 0.1
    """Share of the files that `load("test")` yields and no generator is trained on."""
    licence: str = "unstated"

    def __post_init__(self) -> None:
        check_size(self.size)
        check_share(self.held_out)

    def bring(self, source: Path | None = None) -> Path:
        if source is not None:
            raise DatasetError("image-folder reads the folder that the recipe's `path` names; --from does not apply")
        self._classes()
        return Path(self.path)

    def load(self, split: Split) -> Pictures:
        classes = self._classes()
        label_of = {file: label for label, name in enumerate(classes) for file in self._files(name, split)}
        pixels, labels = [], []
        for file, picture in read_each(list(label_of), self._read, f"{split} pictures"):
            pixels.append(picture)
            labels.append(label_of[file])
        empty = [name for label, name in enumerate(classes) if label not in labels]
        if split == "train" and empty:
            withheld = [name for name in empty if self._files(name, "test") and not self._files(name, "train")]
            if withheld:
                raise DatasetError(
                    f"every picture in {', '.join(withheld)} of {self.path} is held out (held_out is {self.held_out}), "
                    "and none is left to train on; add pictures, or hold out a smaller share"
                )
            raise DatasetError(
                f"{self.path} has no readable picture to train on in {', '.join(empty)}; "
                f"types read: {', '.join(sorted(SUFFIXES))}"
            )
        if not pixels:
            raise DatasetError(f"{self.path} has no readable {split} picture; held_out is {self.held_out}")
        return Pictures(torch.from_numpy(np.stack(pixels)), torch.tensor(labels), tuple(classes))

    def card(self, *, size: int) -> DataSource:
        return DataSource(
            name=Path(self.path).name,
            version="folder",
            licence=self.licence,
            homepage="local",
            size=size,
        )

    def _classes(self) -> list[str]:
        folder = Path(self.path)
        if not folder.is_dir():
            raise DatasetError(f"{folder} is not a folder; `path` in the recipe's [data] must name one")
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not classes:
            raise DatasetError(f"{folder} has no sub-folders; pictures are expected in one sub-folder per class")
        if unnameable := [os.fsencode(name) for name in classes if name != name.encode(errors="replace").decode()]:
            raise DatasetError(
                f"{folder} has sub-folders whose names are no UTF-8: {', '.join(map(str, unnameable))}. The names of "
                "classes go into the bundle; rename them."
            )
        return classes

    def _files(self, name: str, split: Split) -> list[Path]:
        folder = Path(self.path)
        files = picture_files(folder / name)
        return [file for file in files if split_of(file.relative_to(folder).as_posix(), self.held_out) == split]

    def _read(self, file: Path) -> NDArray[np.uint8]:
        return decode(file, self.size, self.channels, crop=self.crop)
