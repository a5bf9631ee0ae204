"""z[, y] -> x against any discriminator, objective, penalty and augmentation."""

import copy
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from service import latents
from service.manifest import Picture
from training.architectures import (
    DISCRIMINATORS,
    GENERATORS,
    DiscriminatorConfig,
    GeneratorConfig,
    PictureShape,
)
from training.compute import Compute
from training.config import Section, choice
from training.datasets import Data, Pictures
from training.diversity import Diversity
from training.ema import EMA
from training.graph import Graph, sampling_graph
from training.health import OVERPOWERED, Symptom
from training.layers import as_bytes
from training.methods.base import AbstractMethod, Draw, Progress
from training.methods.critic import Critic, TwoPlayerConfig
from training.samples import MAX_ROWS

PREVIEW_COLUMNS = 10

SYMPTOMS: dict[str, Symptom] = {
    "discriminator overpowers generator": OVERPOWERED,
    "mode collapse": Symptom(
        scalar="samples/diversity",
        is_ill=lambda ratio: ratio < 0.5,
        advice="samples of one class differ {value:.2f} times as much as the data do. Try: the relativistic objective "
        "with r1 and r2, a larger penalty weight, a larger batch, or a lower generator learning rate.",
    ),
}


class AdversarialConfig(TwoPlayerConfig):
    """The tables of a recipe whose method is `adversarial`."""

    generator: Annotated[GeneratorConfig, choice(GENERATORS, "generator architecture", key="architecture")]
    discriminator: Annotated[
        DiscriminatorConfig, choice(DISCRIMINATORS, "discriminator architecture", key="architecture")
    ]
    n_critic: int = Field(default=1, ge=1)
    """Discriminator updates per generator update."""


class Adversarial(AbstractMethod):
    """Two players: D learns to tell real from generated, G to make D fail.

    Reference: Goodfellow et al., "Generative Adversarial Networks", 2014, algorithm 1, arXiv:1406.2661.
    """

    Config: ClassVar[type[Section]] = AdversarialConfig
    Data: ClassVar[type[Data]] = Pictures
    symptoms: ClassVar[dict[str, Symptom]] = SYMPTOMS
    advice_on_nan: ClassVar[str] = "Try: a lower learning rate, a larger r1/r2 weight, or precision = 'fp32'."

    def __init__(
        self, config: AdversarialConfig, data: Pictures, held_out: Callable[[], Pictures], compute: Compute
    ) -> None:
        self.config = config
        self.data = data
        self.compute = compute
        shape = PictureShape(data.pixels.shape[-1], data.pixels.shape[1], len(data.classes))
        self.generator = compute.place(config.generator.build(shape))
        self.discriminator = compute.place(config.discriminator.build(shape))
        self.critic = Critic(self.discriminator, config, compute)
        self.ema = EMA(self.generator, config.ema)
        self._diversity = Diversity(data)
        self.networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_ema": self.ema.average,
        }
        self.optimizers = {
            "generator": config.generator_optimizer.build(self.generator),
            "discriminator": config.discriminator_optimizer.build(self.discriminator),
        }

    def step(self, draw: Draw, progress: Progress) -> dict[str, Tensor]:
        self.config.generator_optimizer.anneal(self.optimizers["generator"], progress.fraction)
        self.config.discriminator_optimizer.anneal(self.optimizers["discriminator"], progress.fraction)
        scalars: dict[str, Tensor] = {}
        for turn in range(self.config.n_critic):
            index = progress.step * self.config.n_critic + turn
            scalars |= self._train_discriminator(*draw(), index=index, fraction=progress.fraction)
        scalars |= self._train_generator(*draw())
        self.ema.update(self.generator, nimg=progress.nimg, batch_size=progress.batch_size)
        return scalars

    def _train_discriminator(self, real_images: Tensor, y: Tensor, *, index: int, fraction: float) -> dict[str, Tensor]:
        with torch.no_grad():
            fake_images = self._generate(y)
        loss, scalars = self.critic.discriminator_loss(
            real_images, fake_images, self._labels(y), step=index, fraction=fraction
        )
        self._update("discriminator", loss)
        return {name: value.detach() for name, value in scalars.items()}

    def _train_generator(self, real_images: Tensor, y: Tensor) -> dict[str, Tensor]:
        loss = self.critic.generator_loss(real_images, self._generate(y), self._labels(y))
        self._update("generator", loss)
        return {"loss/generator": loss.detach()}

    def _generate(self, y: Tensor) -> Tensor:
        z = torch.randn(len(y), self.generator.z_dim, device=y.device)
        with self.compute.autocast():
            return self.generator(z, self._labels(y)).float()

    def _labels(self, y: Tensor) -> Tensor | None:
        return y if self.data.classes else None

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], labels: Sequence[int]) -> Tensor:
        """The averaged generator's images [N, C, H, W] in [-1, 1], in fp32; sample i is that of `seeds[i]` alone."""
        device = self.compute.torch_device
        z = torch.from_numpy(latents.draw(seeds, self.generator.z_dim)).to(device)
        return self.ema.average(z, self._labels(torch.tensor(labels, device=device)))

    def preview(self) -> NDArray[np.uint8]:
        rows = min(max(1, len(self.data.classes)), MAX_ROWS)
        seeds = list(range(PREVIEW_COLUMNS)) * rows
        labels = np.repeat(np.arange(rows), PREVIEW_COLUMNS).tolist()
        pixels = as_bytes(self.sample(seeds, labels)).cpu().numpy()
        return pixels.reshape(rows, PREVIEW_COLUMNS, *pixels.shape[1:])

    def graph(self, direction: str | None = None) -> Graph:
        size, channels = self.data.pixels.shape[-1], self.data.pixels.shape[1]
        generator = copy.deepcopy(self.ema.average).cpu()
        output = Picture(height=size, width=size, channels=channels)
        return sampling_graph(generator, generator.z_dim, self.data.classes, output)

    def diversity(self) -> float | None:
        return self._diversity(self.sample)
