"""Convolutional G and D after DCGAN, in the form that relativistic objectives with gradient penalties like.

No normalisation: batch statistics couple samples, and the penalties are per sample. Resize and convolve instead of
transposed convolution: no checkerboard. The class enters G beside z, and D through a projection head.

Reference: Radford et al., "Unsupervised Representation Learning with DCGANs", 2015, arXiv:1511.06434.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from training.architectures.base import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    PictureShape,
)
from training.config import RecipeError
from training.layers import ProjectionHead, Upsample2x, initialise

LEAK = 0.2


def _pyramid(size: int) -> tuple[int, int]:
    """(pixels of the smallest map, number of halvings): 28 -> (7, 2), 32 -> (4, 3), 64 -> (4, 4)."""
    smallest, halvings = size, 0
    while smallest > 7 and smallest % 2 == 0:
        smallest //= 2
        halvings += 1
    if not 4 <= smallest <= 7:
        raise RecipeError(f"dcgan needs pictures of 4 to 7 pixels times a power of two (28, 32, 64, ...), not {size}")
    return smallest, halvings


def _widths(base_channels: int, max_channels: int, levels: int) -> list[int]:
    """Channels of each level, the full resolution first."""
    return [min(base_channels * 2**level, max_channels) for level in range(levels)]


@dataclass(frozen=True)
class DCGANGeneratorConfig(GeneratorConfig):
    z_dim: PositiveInt = 64
    embedding_dim: PositiveInt = 64
    base_channels: PositiveInt = 32
    """Channels at full resolution; doubled at each halving."""
    max_channels: PositiveInt = 256

    def build(self, shape: PictureShape) -> "DCGANGenerator":
        return DCGANGenerator(self, shape)


class DCGANGenerator(Generator):
    def __init__(self, config: DCGANGeneratorConfig, shape: PictureShape) -> None:
        super().__init__()
        stem_size, halvings = _pyramid(shape.size)
        widths = _widths(config.base_channels, config.max_channels, halvings + 1)[::-1]
        self.z_dim = config.z_dim
        self.stem_shape = (stem_size, stem_size, widths[0])
        self.embedding = nn.Embedding(shape.num_classes, config.embedding_dim) if shape.num_classes else None
        inputs = config.z_dim + (config.embedding_dim if shape.num_classes else 0)
        self.stem = nn.Linear(inputs, widths[0] * stem_size**2)
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(LEAK)]
            layers += [nn.Conv2d(width, next_width, 3, padding=1), nn.LeakyReLU(LEAK), Upsample2x()]
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.LeakyReLU(LEAK)]
        self.body = nn.Sequential(*layers)
        self.to_image = nn.Conv2d(widths[-1], shape.channels, 3, padding=1)
        self.apply(initialise)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        if self.embedding is not None:
            assert y is not None
            # The class weighs as much as z does: both have a norm near the square root of their dimension.
            c = F.normalize(self.embedding(y), dim=1) * self.embedding.embedding_dim**0.5
            z = torch.cat([z, c], 1)
        # Channels come last in the stem's output, as the convolutions like them.
        x = F.leaky_relu(self.stem(z), LEAK).unflatten(1, self.stem_shape).permute(0, 3, 1, 2)
        return torch.tanh(self.to_image(self.body(x)))


@dataclass(frozen=True)
class DCGANDiscriminatorConfig(DiscriminatorConfig):
    base_channels: PositiveInt = 32
    """Channels at full resolution; doubled at each halving."""
    max_channels: PositiveInt = 256
    feature_dim: PositiveInt = 256
    spectral_norm: bool = False
    """Bound each layer's Lipschitz constant, that of the classes' embedding too, for objectives without a gradient
    penalty (Miyato et al. 2018; Miyato & Koyama 2018).
    """

    def build(self, shape: PictureShape) -> "DCGANDiscriminator":
        return DCGANDiscriminator(self, shape)


class DCGANDiscriminator(Discriminator):
    def __init__(self, config: DCGANDiscriminatorConfig, shape: PictureShape) -> None:
        super().__init__()
        smallest, halvings = _pyramid(shape.size)
        widths = _widths(config.base_channels, config.max_channels, halvings + 1)
        layers: list[nn.Module] = [nn.Conv2d(shape.channels, widths[0], 3, padding=1), nn.LeakyReLU(LEAK)]
        for width, next_width in pairwise(widths):
            layers += [nn.Conv2d(width, next_width, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
            layers += [nn.Conv2d(next_width, next_width, 3, padding=1), nn.LeakyReLU(LEAK)]
        self.body = nn.Sequential(*layers)
        self.to_features = nn.Linear(widths[-1] * smallest**2, config.feature_dim)
        self.head = ProjectionHead(config.feature_dim, shape.num_classes, bounded=config.spectral_norm)
        self.apply(initialise)
        if config.spectral_norm:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                    spectral_norm(module)

    def scores(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        # Flattened with the channels last, which is how they lie in memory.
        features = F.leaky_relu(self.to_features(self.body(x).permute(0, 2, 3, 1).flatten(1)), LEAK)
        realness, match = self.head(features, y)
        return realness, match
