"""What every data set is."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from service.manifest import DataSource
from training.config import Component

Split = Literal["train", "test"]

Direction = Literal["ab", "ba"]
DIRECTIONS: tuple[Direction, ...] = ("ab", "ba")
"""Ways between the two sets of `Domains`."""

BACKGROUND = (255, 255, 255)
"""Red, green and blue that every data set shows where a picture is transparent, and every exported manifest names."""


class DatasetError(Exception):
    """Data that are missing, damaged or not what they should be; the message says what to do."""


def cache_directory() -> Path:
    """Where data sets and judges are kept between runs: `GANERY_CACHE`, or the user's cache folder."""
    if "GANERY_CACHE" in os.environ:
        return Path(os.environ["GANERY_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ganery"


class Data(ABC):
    """A split in memory, as the loop and the methods see it: batches are turned into floats when they are drawn."""

    @abstractmethod
    def __len__(self) -> int:
        """Items of an epoch: what `batch` takes indices of."""

    @property
    def size(self) -> int:
        """Items that a generator trained on these data has seen."""
        return len(self)

    @abstractmethod
    def __str__(self) -> str:
        """How many of what, for messages: `60 pictures of the classes left, right`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Sha256 over all that training sees: other data have another one."""

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """The tensors that a method's step is given for indices int64 [N].

        Whatever it draws at random comes from torch's global CPU generator, whose state a run saves.
        """


def as_floats(items: Tensor) -> Tensor:
    """float32 in [-1, 1] of uint8; what is float32 already is taken to be in [-1, 1]."""
    return items if items.dtype == torch.float32 else items.to(torch.float32).div_(127.5).sub_(1)


def _fingerprint(tensors: Sequence[Tensor], names: object) -> str:
    digest = hashlib.sha256(repr(([tuple(tensor.shape) for tensor in tensors], names)).encode())
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Pictures(Data):
    """Square pictures."""

    pixels: Tensor
    """uint8 [N, C, H, W]."""
    labels: Tensor
    """int64 [N]; all zero if there are no classes."""
    classes: tuple[str, ...]
    """Names in label order; empty if the data have none."""

    def __len__(self) -> int:
        return len(self.pixels)

    def __str__(self) -> str:
        classes = f"of the classes {', '.join(self.classes)}" if self.classes else "without classes"
        return f"{len(self)} pictures {classes}"

    @cached_property
    def fingerprint(self) -> str:
        # Not by `_fingerprint`, which begins otherwise: saved states and judges know their data by this value.
        digest = hashlib.sha256(repr((tuple(self.pixels.shape), self.classes)).encode())
        digest.update(self.pixels.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(images float32 [N, C, H, W] in [-1, 1], labels int64 [N])."""
        return as_floats(self.pixels[indices]), self.labels[indices]


@dataclass(frozen=True)
class Pairs(Data):
    """Sources with the target that belongs to each. Both may be of any shape, and of different ones."""

    sources: Tensor
    """uint8 [N, C, H, W] for pictures; otherwise float32 [N, C, ...] in [-1, 1]."""
    targets: Tensor
    """As `sources`; row i belongs to source i."""
    keys: tuple[str, ...]
    """What each pair is of, for example a code point; no pair of the other split is of the same."""

    def __post_init__(self) -> None:
        assert len(self.sources) == len(self.targets) == len(self.keys)

    def __len__(self) -> int:
        return len(self.sources)

    def __str__(self) -> str:
        return f"{len(self)} pairs"

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint([self.sources, self.targets], self.keys)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(sources, targets), float32 in [-1, 1]."""
        return as_floats(self.sources[indices]), as_floats(self.targets[indices])


@dataclass(frozen=True)
class Domains(Data):
    """Two sets without partners. An epoch passes over the larger; the other's items are drawn at random beside it."""

    a: Tensor
    """uint8 [N, C, H, W] for pictures; otherwise float32 [N, C, ...] in [-1, 1]."""
    b: Tensor
    """As `a`; the number of items may differ."""
    a_keys: tuple[str, ...]
    """What each item of `a` is of."""
    b_keys: tuple[str, ...]
    """What each item of `b` is of. In the held-out split the true partner of an item, where there is one, is the item
    of the other set with the same key; in the training split nothing looks at keys."""

    def __post_init__(self) -> None:
        assert len(self.a) == len(self.a_keys)
        assert len(self.b) == len(self.b_keys)

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    @property
    def size(self) -> int:
        return len(self.a) + len(self.b)

    def sides(self, direction: str) -> tuple[Tensor, Tensor, tuple[str, ...], tuple[str, ...]]:
        """(sources, targets) of one of `DIRECTIONS`, and the keys of both."""
        if direction == "ba":
            return self.b, self.a, self.b_keys, self.a_keys
        return self.a, self.b, self.a_keys, self.b_keys

    def __str__(self) -> str:
        pairs = len(set(self.a_keys) & set(self.b_keys))
        return f"two domains of {len(self.a)} and {len(self.b)} items, {pairs or 'no'} pairs among them"

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint([self.a, self.b], (self.a_keys, self.b_keys))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b), float32 in [-1, 1], drawn independently of each other."""
        if len(self.a) >= len(self.b):
            return as_floats(self.a[indices]), as_floats(self.b[torch.randint(len(self.b), (len(indices),))])
        return as_floats(self.a[torch.randint(len(self.a), (len(indices),))]), as_floats(self.b[indices])


def partners(keys: Sequence[str], other_keys: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Where the keys stand that are in both, int64 [M] in each, in the order of the first."""
    place = {key: index for index, key in enumerate(other_keys)}
    both = [(index, place[key]) for index, key in enumerate(keys) if key in place]
    here, there = torch.tensor(both, dtype=torch.int64).reshape(-1, 2).T
    return here, there


class AbstractDataset(Component, ABC):
    """A source of data; its fields are the keys of a recipe's `[data]` table."""

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
    def load(self, split: Split) -> Data:
        """A split: `Pictures`, `Pairs` or `Domains`.

        Raises:
            DatasetError: if `bring` has not been called, with the command that does.
        """

    @abstractmethod
    def card(self, *, size: int) -> DataSource:
        """Name, version and licence, for the manifest; `size` is how many items were really read."""
