"""What a method may expect of an architecture."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from training.config import Component


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
