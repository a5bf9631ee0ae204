"""What a method may expect of an architecture."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.config import Component

Sizes = Literal["any", "fixed"]
"""Whether a graph takes items of other sizes than it was trained on."""

ADAPTED_TO = 4096
"""At most so many items of each training set are shown to `Translator.adapt`."""


@dataclass(frozen=True)
class PictureShape:
    """What the data dictate to a network."""

    size: int
    """Height and width in pixels."""
    channels: int
    num_classes: int
    """0 = unconditional."""


class Generator(nn.Module, ABC):
    """z, y -> x."""

    z_dim: int

    @abstractmethod
    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Images [N, C, H, W] in [-1, 1] of latents [N, z_dim] and labels int64 [N]."""


class Discriminator(nn.Module, ABC):
    """x, y -> two scores, whose sum is the logit."""

    @abstractmethod
    def scores(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """("is it real" [N], "does it match its class" [N]) of images [N, C, H, W] in [-1, 1]; both unbounded."""

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Logits [N]."""
        realness, match = self.scores(x, y)
        return realness + match


class GeneratorConfig(Component, ABC):
    """The `[generator]` table."""

    @abstractmethod
    def build(self, shape: PictureShape) -> Generator:
        """A freshly initialised network; raises RecipeError if the shape does not suit it."""


class DiscriminatorConfig(Component, ABC):
    """The `[discriminator]` table."""

    @abstractmethod
    def build(self, shape: PictureShape) -> Discriminator:
        """A freshly initialised network; raises RecipeError if the shape does not suit it."""


class Translator(nn.Module, ABC):
    """x[, z] -> x' of the same extent, in which every place depends on a neighbourhood of known size alone.

    No statistics over a whole item enter, so that a large one can be translated in tiles without a seam.
    """

    z_dim: int
    """0 if it takes no z."""
    multiple_of: int
    """Every extent must be a multiple of this."""
    halo: int
    """What lies further than this from a place has no influence on it."""
    sizes: Sizes

    def adapt(self, sources: Tensor, targets: Tensor) -> None:  # most have nothing to read off them
        """See items [M, C, ...] of both training sets, in [-1, 1], before the first step; they need not correspond."""

    @abstractmethod
    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        """Items [N, C', ...] of sources [N, C, ...] in [-1, 1] and latents [N, z_dim].

        They are to be in [-1, 1], and nothing holds them there but what they learn: where tanh is flat, as at white, no
        loss finds a way back. `as_bytes` clamps.
        """


class TranslatorConfig(Component, ABC):
    """The `[generator]` table of a method that translates."""

    @abstractmethod
    def build(self, source: tuple[int, ...], target: tuple[int, ...]) -> Translator:
        """A freshly initialised network for items of these shapes [C, ...]; raises RecipeError if they do not suit."""


class PatchDiscriminator(nn.Module, ABC):
    """x -> a logit for each patch of it."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Unbounded logits [N, 1, ...] of items [N, C, ...] in [-1, 1]; there is no label that it would heed."""


class PatchDiscriminatorConfig(Component, ABC):
    """The `[discriminator]` table of a method that translates."""

    @abstractmethod
    def build(self, shape: tuple[int, ...]) -> PatchDiscriminator:
        """A freshly initialised network for items of this shape [C, ...]; raises RecipeError if it does not suit."""
