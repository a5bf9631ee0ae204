"""Layers shared by architectures."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Upsample2x(nn.Module):
    """Nearest neighbour, then a convolution follows: no checkerboard.

    Reference: Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def initialise(module: nn.Module, leak: float = 0.2) -> None:
    """He et al. 2015 (arXiv:1502.01852), for the leaky ReLU; biases zero."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=leak)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def begin(to_image: nn.Conv2d, *, residual: bool) -> None:
    """Weights so small that the first pictures are nearly grey, and no loss begins by undoing chance.

    Zero, if what comes out is added to the source: then the first pictures are the sources.
    """
    with torch.no_grad():
        to_image.weight.mul_(0 if residual else 0.1)


class Shift(nn.Module):
    """Adds a linear map of z to every place of maps: what z as further channels does to the next convolution."""

    def __init__(self, z_dim: int, channels: int) -> None:
        super().__init__()
        self.of_z = nn.Linear(z_dim, channels) if z_dim else None

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        """Maps [N, C, H, W] and latents [N, z_dim]; unchanged if there is no z."""
        if self.of_z is None or z is None:
            return x
        shift: Tensor = self.of_z(z)
        return x + shift[:, :, None, None]


def as_bytes(images: Tensor) -> Tensor:
    """Images [N, C, H, W] in [-1, 1] as uint8 [N, H, W, C]: clamped, rounded half to even."""
    levels = torch.round((images.clamp(-1, 1) + 1) * 127.5)
    return levels.to(torch.uint8).permute(0, 2, 3, 1)


def is_finite(images: Tensor) -> Tensor:
    """Whether pictures can be made of images [N, C, H, W], bool [N]: NaN and infinity do not show in bytes any more.

    One sum per image, in which either survives: it costs an exported graph next to nothing.
    """
    return torch.isfinite(images.float().sum((1, 2, 3)))


class ProjectionHead(nn.Module):
    """Two scores from features: "is it real" and "does it match the class"; the logit is their sum.

    realness = w.f + b, match = <E(y), f> / sqrt(d). Without classes the match is 0.

    Reference: Miyato & Koyama, "cGANs with Projection Discriminator", 2018, arXiv:1802.05637, eq. 5.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.realness = nn.Linear(features, 1)
        self.embedding = nn.Embedding(num_classes, features) if num_classes else None

    def forward(self, features: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """(realness [N], match [N]) of features [N, d]."""
        realness = self.realness(features).squeeze(1)
        if self.embedding is None or y is None:
            return realness, torch.zeros_like(realness)
        return realness, (self.embedding(y) * features).sum(1) / math.sqrt(features.shape[1])
