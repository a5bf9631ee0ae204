"""Layers shared by architectures."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WHITE = 1.0
NEARLY_WHITE = 0.1
"""What is darker than white by less than this, in any channel, is no part of a drawing."""


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


class Framing(nn.Module):
    """Scales and shifts pictures on white so that what they show fills as much of the frame as in another set.

    A convolution moves nothing further than a few pixels, and a gradient finds no way there: between whole pixels all
    pictures are blurred. So both numbers come from the sets, not from training. White comes in from outside.

    Reference: Jaderberg et al., "Spatial Transformer Networks", 2015, arXiv:1506.02025, section 3.3, for the sampling.
    """

    theta: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("theta", torch.eye(2, 3))
        """The affine map from places in the output to places in the source, [2, 3]; both are (x, y) in [-1, 1]."""

    def fit(self, sources: Tensor, targets: Tensor) -> None:
        """Bring the mean width, height and place in sources [N, C, H, W] in [-1, 1] to those in targets."""
        (extent, centre), (wanted, wanted_centre) = _extents(sources), _extents(targets)
        scale = extent / wanted
        self.theta.copy_(torch.cat([torch.diag(scale), (centre - scale * wanted_centre)[:, None]], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [N, C, H, W] in [-1, 1]; the same shape, bilinear between pixels."""
        grid = F.affine_grid(self.theta[None], [1, *x.shape[1:]], align_corners=False)
        return F.grid_sample(x.float() - WHITE, grid.expand(x.shape[0], -1, -1, -1), align_corners=False) + WHITE


def _extents(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(width and height, centre) of what is not white, as a share of the frame and in [-1, 1]; means over pictures."""
    drawn = (pictures < WHITE - NEARLY_WHITE).any(1)
    drawn = drawn[drawn.any((1, 2))]
    extents, centres = [], []
    for axis in (1, 2):  # what is left of [N, H, W] are columns, then rows
        line = drawn.any(axis)
        length = line.shape[1]
        first = line.int().argmax(1).float()
        last = length - line.flip(1).int().argmax(1).float()
        extents.append((last - first).mean() / length)
        centres.append((last + first).mean() / length - 1)
    return torch.stack(extents), torch.stack(centres)


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

    def __init__(self, features: int, num_classes: int, *, bounded: bool = False) -> None:
        """
        Args:
            bounded: whether the weights are given a spectral norm of 1; then match = <E(y), f>, as in the paper.
                Otherwise the rows of E begin about as long as the root.
        """
        super().__init__()
        self.divisor = 1.0 if bounded else math.sqrt(features)
        self.realness = nn.Linear(features, 1)
        self.embedding = nn.Embedding(num_classes, features) if num_classes else None

    def forward(self, features: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """(realness [N], match [N]) of features [N, d]."""
        realness = self.realness(features).squeeze(1)
        if self.embedding is None or y is None:
            return realness, torch.zeros_like(realness)
        return realness, (self.embedding(y) * features).sum(1) / self.divisor
