"""Two folders of pictures that do not belong together in pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from service.manifest import DataSource
from training.datasets.base import AbstractDataset, DatasetError, Domains, Split
from training.datasets.picture_files import SUFFIXES, Crop, check_size, decode, picture_files, read_each
from training.datasets.splits import check_share, split_of


@dataclass(frozen=True)
class TwoFolders(AbstractDataset):
    """Every picture below folder `a`, and every picture below folder `b`.

    Held out is a share of the files, chosen by the hash of their path below their folder without its suffix: where a
    file of the same name in the other folder is the true partner, it is held out too.
    """

    a: str
    b: str
    size: int
    """Height and width that every picture gets, pixels."""
    channels: Literal[1, 3] = 3
    crop: Crop = "centre"
    """How a picture that is not square becomes so: its middle is cut out, or (`none`) it is refused."""
    held_out: float = 0.1
    licence: str = "unstated"

    def __post_init__(self) -> None:
        check_size(self.size)
        check_share(self.held_out)

    def bring(self, source: Path | None = None) -> Path:
        if source is not None:
            raise DatasetError("two-folders reads the folders that the recipe names; --from does not apply")
        for folder in (self.a, self.b):
            _files(Path(folder))
        return Path(self.a)

    def load(self, split: Split) -> Domains:
        (a, a_keys), (b, b_keys) = (self._side(Path(folder), split) for folder in (self.a, self.b))
        return Domains(a, b, a_keys, b_keys)

    def card(self, *, size: int) -> DataSource:
        name = f"{Path(self.a).name} and {Path(self.b).name}"
        return DataSource(name=name, version="folders", licence=self.licence, homepage="local", size=size)

    def _side(self, folder: Path, split: Split) -> tuple[Tensor, tuple[str, ...]]:
        key_of = {file: file.relative_to(folder).with_suffix("").as_posix() for file in _files(folder)}
        chosen = [file for file, key in key_of.items() if split_of(key, self.held_out) == split]
        read = dict(
            read_each(
                chosen,
                lambda file: decode(file, self.size, self.channels, crop=self.crop),
                f"{split} pictures",
            )
        )
        if not read:
            raise DatasetError(f"{folder} has no readable {split} picture; held_out is {self.held_out}")
        return torch.from_numpy(np.stack(list(read.values()))), tuple(key_of[file] for file in read)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; `a` and `b` in the recipe's [data] must each name one")
    files = picture_files(folder)
    if not files:
        raise DatasetError(f"{folder} holds no picture; types read: {', '.join(sorted(SUFFIXES))}")
    return files
