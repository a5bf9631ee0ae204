"""What every data set is."""

import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from service.manifest import DataSource
from training.config import Component

Split = Literal["train", "test"]


class DatasetError(Exception):
    """Data that are missing, damaged or not what they should be; the message says what to do."""


def cache_directory() -> Path:
    """Where data sets and judges are kept between runs: `GANERY_CACHE`, or the user's cache folder."""
    if "GANERY_CACHE" in os.environ:
        return Path(os.environ["GANERY_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ganery"


@dataclass(frozen=True)
class Pictures:
    """Square pictures in memory, as bytes: a batch is turned into floats when it is drawn."""

    pixels: Tensor
    """uint8 [N, C, H, W]."""
    labels: Tensor
    """int64 [N]; all zero if there are no classes."""
    classes: tuple[str, ...]
    """Names in label order; empty if the data have none."""

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of pixels, labels and classes: other data have another one."""
        digest = hashlib.sha256(repr((tuple(self.pixels.shape), self.classes)).encode())
        digest.update(self.pixels.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(images float32 [N, C, H, W] in [-1, 1], labels int64 [N])."""
        return self.pixels[indices].to(torch.float32).div_(127.5).sub_(1), self.labels[indices]


class AbstractDataset(Component, ABC):
    """A source of pictures; its fields are the keys of a recipe's `[data]` table."""

    @abstractmethod
    def bring(self, source: Path | None = None) -> Path:
        """Make the data available on this machine and verify them; done twice, the second time only verifies.

        Args:
            source: a file or folder that holds the data already, instead of fetching them.

        Returns:
            Where they are.

        Raises:
            DatasetError: if they cannot be had or are damaged.
        """

    @abstractmethod
    def load(self, split: Split) -> Pictures:
        """The pictures of a split.

        Raises:
            DatasetError: if `bring` has not been called, with the command that does.
        """

    @abstractmethod
    def card(self, *, size: int) -> DataSource:
        """Name, version and licence, for the manifest; `size` is how many pictures were really read."""
