"""Residual blocks at a quarter of the size, between two halvings and two doublings.

Without instance normalisation, which this family has had since the paper: its statistics over a whole picture would
leave seams between tiles. Instead each block begins as the identity (its last layer is zero). Resize and convolve
instead of transposed convolution: no checkerboard.

References: Johnson et al., "Perceptual Losses for Real-Time Style Transfer", 2016, arXiv:1603.08155; Zhu et al.,
"Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017, arXiv:1703.10593, section 7.1;
Zhang et al., "Fixup Initialization", 2019, arXiv:1901.09321.
"""

from dataclasses import dataclass

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.base import Sizes, Translator, TranslatorConfig
from training.architectures.picture_items import picture_channels
from training.config import RecipeError
from training.layers import Framing, Shift, Upsample2x, begin, initialise

LEAK = 0.2
QUARTER = 4


@dataclass(frozen=True)
class ResNetConfig(TranslatorConfig):
    base_channels: PositiveInt = 24
    """Channels at full resolution; doubled at each of the two halvings."""
    blocks: PositiveInt = 4
    z_dim: NonNegativeInt = 0
    """z shifts the channels before the blocks; 0 for a generator that takes none."""
    residual: bool = False
    """Add the source to what the last layer makes, which is zero at first, so that training begins at the identity;
    needs the same channels."""
    framing: bool = False
    """Scale and shift the source first, so that what it shows fills as much of the frame as targets do, on average;
    for pictures on white whose sizes are fixed."""
    sizes: Sizes = "any"

    def __post_init__(self) -> None:
        if self.framing and self.sizes == "any":
            raise RecipeError('generator.framing is about whole pictures of one size; set generator.sizes to "fixed"')

    def build(self, source: tuple[int, ...], target: tuple[int, ...]) -> "ResNet":
        return ResNet(self, *picture_channels(source, target, multiple_of=QUARTER, residual=self.residual))


class Block(nn.Module):
    """x + f(x) of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.leaky_relu(self.first(F.leaky_relu(x, LEAK)), LEAK))


class ResNet(Translator):
    def __init__(self, config: ResNetConfig, source_channels: int, target_channels: int) -> None:
        super().__init__()
        width = config.base_channels
        self.z_dim, self.sizes, self.residual = config.z_dim, config.sizes, config.residual
        self.multiple_of = QUARTER
        self.framing = Framing() if config.framing else None
        self.down = nn.Sequential(
            nn.Conv2d(source_channels, width, 5, padding=2),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
        )
        self.shift = Shift(config.z_dim, 4 * width)
        self.blocks = nn.Sequential(*(Block(4 * width) for _ in range(config.blocks)))
        self.up = nn.Sequential(
            Upsample2x(),
            nn.Conv2d(4 * width, 2 * width, 3, padding=1),
            nn.LeakyReLU(LEAK),
            Upsample2x(),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.LeakyReLU(LEAK),
        )
        self.to_image = nn.Conv2d(width, target_channels, 5, padding=2)
        # From the image back: 2 and 1 at full size, alignment to cells of 2, 2 at half size, alignment to cells of 4,
        # 4 for each convolution of the blocks, 2 and 1 for the strided ones, 2 for the first.
        self.halo = 2 + 1 + 1 + 2 + 2 + 2 * QUARTER * config.blocks + 2 + 1 + 2
        self.apply(initialise)
        begin(self.to_image, residual=config.residual)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.zeros_(block.last.weight)

    def adapt(self, sources: Tensor, targets: Tensor) -> None:
        if self.framing is not None:
            self.framing.fit(sources, targets)
            if not self.framing.theta.isfinite().all():
                raise RecipeError("generator.framing compares what is drawn on white; one set shows nothing but white")

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        x = x if self.framing is None else self.framing(x)
        maps = self.shift(self.down(x), z)
        made: Tensor = self.to_image(self.up(F.leaky_relu(self.blocks(maps), LEAK)))
        return x + made if self.residual else made
