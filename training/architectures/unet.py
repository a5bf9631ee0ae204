"""U-Net: halve to the bottom, double back up, and see at each size what was there on the way down.

No normalisation (statistics of a whole picture would leave seams between tiles, and those of a batch couple samples),
no dropout (it does not survive export); resize and convolve instead of transposed convolution: no checkerboard.

References: Ronneberger et al., "U-Net", 2015, arXiv:1505.04597; Isola et al., "Image-to-Image Translation with
Conditional Adversarial Networks", 2016, arXiv:1611.07004, section 3.2.1.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.base import Sizes, Translator, TranslatorConfig
from training.architectures.picture_items import picture_channels
from training.layers import Shift, Upsample2x, begin, initialise

LEAK = 0.2


@dataclass(frozen=True)
class UNetConfig(TranslatorConfig):
    base_channels: PositiveInt = 16
    """Channels at full resolution; doubled at each halving."""
    max_channels: PositiveInt = 256
    halvings: PositiveInt = 4
    z_dim: NonNegativeInt = 0
    """z shifts the channels at the bottom; 0 for a generator that takes none."""
    residual: bool = False
    """Add the source to what the last layer makes, which is zero at first, so that training begins at the identity;
    needs the same channels."""
    sizes: Sizes = "any"

    def build(self, source: tuple[int, ...], target: tuple[int, ...]) -> "UNet":
        channels = picture_channels(source, target, multiple_of=2**self.halvings, residual=self.residual)
        return UNet(self, *channels)


class UNet(Translator):
    def __init__(self, config: UNetConfig, source_channels: int, target_channels: int) -> None:
        super().__init__()
        widths = [min(config.base_channels * 2**level, config.max_channels) for level in range(config.halvings + 1)]
        self.z_dim, self.sizes, self.residual = config.z_dim, config.sizes, config.residual
        self.multiple_of = 2**config.halvings
        self.stem = nn.Conv2d(source_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, wider, 4, stride=2, padding=1) for width, wider in pairwise(widths))
        self.bottom = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.shift = Shift(config.z_dim, widths[-1])
        self.upsample = Upsample2x()
        self.up = nn.ModuleList(nn.Conv2d(wider + width, width, 3, padding=1) for width, wider in pairwise(widths))
        self.to_image = nn.Conv2d(widths[0], target_channels, 3, padding=1)
        scales = [2**level for level in range(config.halvings)]
        # From the image back: 1 for `to_image`, s for each `up`, alignment to ever larger cells, `bottom`, s for each
        # `down`, 1 for `stem`.
        self.halo = 1 + sum(scales) + (self.multiple_of - 1) + self.multiple_of + sum(scales) + 1
        self.apply(initialise)
        begin(self.to_image, residual=config.residual)

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        maps = F.leaky_relu(self.stem(x), LEAK)
        passed = []
        for down in self.down:
            passed.append(maps)
            maps = F.leaky_relu(down(maps), LEAK)
        maps = F.leaky_relu(self.shift(self.bottom(maps), z), LEAK)
        for up, beside in zip(reversed(self.up), reversed(passed), strict=True):
            maps = F.leaky_relu(up(torch.cat([self.upsample(maps), beside], 1)), LEAK)
        made: Tensor = self.to_image(maps)
        return x + made if self.residual else made
