"""A folder of pictures with one sub-folder per class is a data set too."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from service.manifest import DataSource
from training.config import RecipeError
from training.datasets.base import AbstractDataset, DatasetError, Pictures, Split

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

logger = logging.getLogger(__name__)


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
    crop: Literal["centre", "none"] = "centre"
    """How a picture that is not square becomes so: its middle is cut out, or (`none`) it is refused."""
    held_out: float = 0.1
    """Share of the files that `load("test")` yields and no generator is trained on."""
    licence: str = "unstated"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"size is {self.size}; it must be at least 1 pixel")
        if not 0 <= self.held_out < 1:
            raise RecipeError(f"held_out is {self.held_out}; it must be a share from 0 to below 1")

    def bring(self, source: Path | None = None) -> Path:
        if source is not None:
            raise DatasetError("image-folder reads the folder that the recipe's `path` names; --from does not apply")
        self._classes()
        return Path(self.path)

    def load(self, split: Split) -> Pictures:
        classes = self._classes()
        pixels, labels, refused = [], [], []
        files = [(file, label) for label, name in enumerate(classes) for file in self._files(name, split)]
        for file, label in tqdm(files, desc=f"reading {split} pictures", unit="file", leave=False):
            try:
                pixels.append(self._read(file))
                labels.append(label)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                refused.append(file)
                logger.warning("left out %s: %s", file, error)
        if refused:
            logger.warning("%d of %d %s pictures were left out", len(refused), len(files), split)
        empty = [name for label, name in enumerate(classes) if label not in labels]
        if split == "train" and empty:
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
            raise DatasetError(f"{folder} is not a folder")
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not classes:
            raise DatasetError(f"{folder} has no sub-folders; pictures are expected in one sub-folder per class")
        return classes

    def _files(self, name: str, split: Split) -> list[Path]:
        folder = Path(self.path)
        files = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        return [file for file in files if self._is_held_out(file.relative_to(folder)) == (split == "test")]

    def _is_held_out(self, relative: Path) -> bool:
        first_bytes = hashlib.sha256(relative.as_posix().encode()).digest()[:8]
        return int.from_bytes(first_bytes) < self.held_out * 2**64

    def _read(self, file: Path) -> np.ndarray:
        """uint8 [C, size, size] of a file; what is transparent shows white."""
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.width != picture.height and self.crop == "none":
                raise ValueError(f"is {picture.width} x {picture.height}, not square, and the recipe crops nothing")
            if picture.mode.startswith("I;16"):
                # Pillow would clip to 8 bits instead of scaling.
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            if picture.mode in ("I", "F"):
                raise ValueError(
                    f"has pixels of mode {picture.mode}, whose range is not known; save it with 8 or 16 bits"
                )
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if self.channels == 1 else "RGB")
            picture = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.LANCZOS)
        return np.asarray(picture).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)
