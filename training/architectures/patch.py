"""PatchGAN: a convolutional D that judges every patch of a picture, and nothing larger.

No normalisation: batch statistics couple samples, and gradient penalties are per sample.

Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2016, arXiv:1611.07004,
section 3.2.2 and appendix 6.1.2.
"""

from dataclasses import dataclass

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as bounded

from training.architectures.base import PatchDiscriminator, PatchDiscriminatorConfig
from training.config import RecipeError
from training.layers import initialise

LEAK = 0.2
KERNEL = 4
HALVINGS = {16: 1, 34: 2, 70: 3}
"""Strided layers by the field that they and the two layers after them have: (4 + 3) * 2**n + 2 * (2**n - 1)."""


@dataclass(frozen=True)
class PatchConfig(PatchDiscriminatorConfig):
    field: PositiveInt = 34
    """Height and width of a patch in pixels: all that one logit sees. No larger than the pictures."""
    base_channels: PositiveInt = 32
    """Channels after the first layer; doubled by each further one."""
    max_channels: PositiveInt = 256
    spectral_norm: bool = False
    """Bound each layer's Lipschitz constant, for objectives without a gradient penalty (Miyato et al. 2018)."""

    def build(self, shape: tuple[int, ...]) -> "Patch":
        if len(shape) != 3:
            raise RecipeError(f"the discriminator patch judges pictures [C, H, W], not {list(shape)}")
        if self.field not in HALVINGS:
            raise RecipeError(f"discriminator.field is {self.field}; possible: {', '.join(map(str, HALVINGS))} pixels")
        if self.field > min(shape[1:]):
            fitting = [field for field in HALVINGS if field <= min(shape[1:])]
            raise RecipeError(
                f"discriminator.field is {self.field} pixels, and the pictures have only {shape[1]} x {shape[2]}; "
                f"fitting: {', '.join(map(str, fitting)) or 'none, so take larger pictures'}"
            )
        return Patch(self, shape[0])


class Patch(PatchDiscriminator):
    def __init__(self, config: PatchConfig, channels: int) -> None:
        super().__init__()
        layers: list[nn.Conv2d] = []
        width = channels
        for level, stride in enumerate([2] * HALVINGS[config.field] + [1]):
            wider = min(config.base_channels * 2**level, config.max_channels)
            layers.append(nn.Conv2d(width, wider, KERNEL, stride=stride, padding=1))
            width = wider
        self.layers = nn.ModuleList(layers)
        self.to_logits = nn.Conv2d(width, 1, KERNEL, padding=1)
        self.apply(initialise)
        if config.spectral_norm:
            for layer in [*self.layers, self.to_logits]:
                bounded(layer)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAK)
        logits: Tensor = self.to_logits(x)
        return logits
