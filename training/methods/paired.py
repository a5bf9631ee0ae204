"""source[, z] -> target from pairs: distances to the target, and a discriminator that sees both."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor, nn

from service import latents
from training.architectures import ADAPTED_TO
from training.augment import Augment, jitter
from training.compute import Compute
from training.config import RecipeError, Section
from training.datasets import Data, Pairs
from training.datasets.base import as_floats
from training.distances import DISTANCES, DistanceConfig
from training.ema import EMA
from training.graph import Graph
from training.health import OVERPOWERED, Symptom
from training.media import Examples, medium_of, some
from training.methods.base import AbstractMethod, Draw, Progress
from training.methods.critic import Critic, TranslationConfig

PREVIEW_ROWS = 8
PREVIEW_ITEMS = 24
EXAMPLES = 64

SYMPTOMS: dict[str, Symptom] = {
    "discriminator overpowers generator": OVERPOWERED,
    "z is ignored": Symptom(
        scalar="samples/diversity",
        is_ill=lambda ratio: ratio < 0.02,
        advice="two seeds differ {value:.3f} times as much as outputs differ from their targets. Try: a smaller "
        "weight of the reconstruction; or z_dim = 0, if one answer is all there is.",
    ),
}


class PairedConfig(TranslationConfig):
    """The tables and keys of a recipe whose method is `paired`. With `adversarial_weight = 0` it trains by distances
    alone, and then there is no discriminator.
    """

    reconstruction: tuple[DistanceConfig, ...] = Field(default=(DistanceConfig(name="l1", weight=100),), min_length=1)
    """Distances of output and target."""

    @field_validator("augment")
    @classmethod
    def _changes_both_alike(cls, augment: Augment | None) -> Augment | None:
        if augment is not None and "colour" in augment.policies:
            raise ValueError("colour would mix the channels of source and target; possible here: cutout, translation")
        return augment


class Paired(AbstractMethod):
    """G is drawn to the target by distances, and past their blur by a D that judges patches of (source, output).

    Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2016,
    arXiv:1611.07004, eq. 4.
    """

    Config: ClassVar[type[Section]] = PairedConfig
    Data: ClassVar[type[Data]] = Pairs
    symptoms: ClassVar[dict[str, Symptom]] = SYMPTOMS
    advice_on_nan: ClassVar[str] = "Try: a lower learning rate, a larger r1 weight, or precision = 'fp32'."

    def __init__(self, config: PairedConfig, data: Pairs, held_out: Callable[[], Pairs], compute: Compute) -> None:
        self.config = config
        self.compute = compute
        self.medium = medium_of(data.sources)
        source, target = tuple(data.sources.shape[1:]), tuple(data.targets.shape[1:])
        if "channels" in config.jitter and source[0] != target[0]:
            raise RecipeError(
                f"jitter is to swap channels, and the source has {source[0]} and the target {target[0]}; leave it out"
            )
        generator = config.generator.build(source, target)
        generator.adapt(*(as_floats(some(items, ADAPTED_TO)) for items in (data.sources, data.targets)))
        self.generator = compute.place(generator)
        self.ema = EMA(self.generator, config.ema)
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "generator_ema": self.ema.average}
        self.optimizers = {"generator": config.generator_optimizer.build(self.generator)}
        self.critic: Critic | None = None
        if config.adversarial_weight:
            discriminator = compute.place(config.discriminator.build((source[0] + target[0], *target[1:])))
            self.critic = Critic(discriminator, config, compute, compares_pairs=True)
            self.networks["discriminator"] = discriminator
            self.optimizers["discriminator"] = config.discriminator_optimizer.build(discriminator)
        shown = held_out()
        self.sources, self.targets = shown.batch(some(torch.arange(len(shown)), EXAMPLES))

    def step(self, draw: Draw, progress: Progress) -> dict[str, Tensor]:
        source, target = jitter(self.config.jitter, *draw())
        output = self._generate(source)
        # D judges a pair: the same output is wrong for another source.
        real, fake = torch.cat([source, target], 1), torch.cat([source, output], 1)
        scalars: dict[str, Tensor] = {}
        if self.critic is not None:
            self.config.discriminator_optimizer.anneal(self.optimizers["discriminator"], progress.fraction)
            loss, scalars = self.critic.discriminator_loss(
                real, fake.detach(), step=progress.step, fraction=progress.fraction
            )
            self._update("discriminator", loss)
        self.config.generator_optimizer.anneal(self.optimizers["generator"], progress.fraction)
        loss = torch.zeros((), device=output.device)
        for distance in self.config.reconstruction:
            value = scalars[f"loss/{distance.name}"] = DISTANCES[distance.name](output, target)
            loss = loss + distance.weight * value
        if self.critic is not None:
            scalars["loss/generator"] = self.critic.generator_loss(real, fake)
            loss = loss + self.config.adversarial_weight * scalars["loss/generator"]
        self._update("generator", loss)
        self.ema.update(self.generator, nimg=progress.nimg, batch_size=progress.batch_size)
        return {name: value.detach() for name, value in scalars.items()}

    def _generate(self, source: Tensor) -> Tensor:
        z_dim = self.generator.z_dim
        z = torch.randn(len(source), z_dim, device=source.device) if z_dim else None
        with self.compute.autocast():
            return self.generator(source, z).float()

    @torch.no_grad()
    def translate(self, sources: Tensor, seed: int = 0) -> Tensor:
        """The averaged generator's items of sources [N, C, ...] in [-1, 1], in fp32 on the CPU, all of one seed."""
        device, z_dim = self.compute.torch_device, self.generator.z_dim
        z = torch.from_numpy(latents.draw([seed] * len(sources), z_dim)).to(device) if z_dim else None
        return self.ema.average(sources.to(device), z).cpu()

    def preview(self) -> NDArray[np.uint8]:
        """Held-out source, output and target side by side."""
        sources, targets = some(self.sources, PREVIEW_ITEMS), some(self.targets, PREVIEW_ITEMS)
        return self.medium.show([sources, self.translate(sources), targets], PREVIEW_ROWS)

    def graph(self, direction: str | None = None) -> Graph:
        return self.medium.graph(self.ema.average, Examples(self.sources, self.targets))

    def diversity(self) -> float | None:
        """How much two seeds' outputs differ, over how much outputs differ from their targets; None without z."""
        if not self.generator.z_dim:
            return None
        one, other = (self.translate(self.sources, seed) for seed in (0, 1))
        return float((one - other).abs().mean() / (one - self.targets).abs().mean().clamp(min=1e-6))
