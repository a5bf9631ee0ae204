"""What kind of thing items are, and so how they are shown and what graph makes them: all that a method which translates
leaves to others, so that it translates pictures, and later waveforms and frames, alike.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.architectures import Translator
from training.config import RecipeError
from training.graph import Graph
from training.layers import as_bytes
from training.samples import strips
from training.translation import translation_graph


@dataclass(frozen=True)
class Examples:
    """Held-out items on which a generator is shown; the same ones every time."""

    sources: Tensor
    """float32 [N, C, ...] in [-1, 1]."""
    targets: Tensor | None
    """What belongs to each; None if nobody knows."""


class AbstractMedium(ABC):
    """A kind of item."""

    @abstractmethod
    def show(self, columns: Sequence[Tensor], rows: int) -> NDArray[np.uint8]:
        """Pictures [rows, columns, H, W, C] of items [N, C, ...] in [-1, 1]: item i of every column side by side, as
        many such strips in each row as there are.
        """

    @abstractmethod
    def graph(self, generator: Translator, examples: Examples) -> Graph:
        """What is exported of a generator that is in evaluation mode."""


class PictureMedium(AbstractMedium):
    """Items [N, C, H, W]."""

    def show(self, columns: Sequence[Tensor], rows: int) -> NDArray[np.uint8]:
        return strips([as_bytes(column).cpu().numpy() for column in columns], rows)

    def graph(self, generator: Translator, examples: Examples) -> Graph:
        sources = as_bytes(examples.sources)
        targets = None if examples.targets is None else as_bytes(examples.targets)
        return translation_graph(copy.deepcopy(generator).cpu(), sources, targets, self.show)


MEDIA: dict[int, AbstractMedium] = {
    4: PictureMedium(),
}
"""By how many axes a batch has; waveforms [N, C, T] and frames [N, F, C, H, W] have other ones."""


def medium_of(items: Tensor) -> AbstractMedium:
    """The medium of a batch.

    Raises:
        RecipeError: if nobody knows it.
    """
    if items.ndim not in MEDIA:
        raise RecipeError(
            f"items of shape {list(items.shape[1:])} are no pictures [C, H, W], and nothing else is shown"
        )
    return MEDIA[items.ndim]


def some(items: Tensor, count: int) -> Tensor:
    """At most `count` of the items, evenly spread."""
    return items[torch.linspace(0, len(items) - 1, min(count, len(items))).round().long()]
