"""A patch discriminator with all that it is trained by: what the methods that translate share."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from training.architectures import (
    PATCH_DISCRIMINATORS,
    TRANSLATORS,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    TranslatorConfig,
)
from training.augment import Augment
from training.compute import Compute
from training.config import Section, choice
from training.ema import EMAConfig
from training.methods.base import Progress
from training.objectives import OBJECTIVES, AbstractObjective
from training.optimizers import AdamConfig
from training.penalties import PENALTIES, PenaltyConfig


class TranslationConfig(Section):
    """The tables and keys that every method which translates has."""

    generator: Annotated[TranslatorConfig, choice(TRANSLATORS, "generator architecture", key="architecture")]
    discriminator: Annotated[
        PatchDiscriminatorConfig, choice(PATCH_DISCRIMINATORS, "patch discriminator", key="architecture")
    ]
    objective: Annotated[AbstractObjective, choice(OBJECTIVES, "objective")]
    adversarial_weight: float = Field(default=1.0, ge=0)
    """Of the objective in the generator's loss."""
    penalties: tuple[PenaltyConfig, ...] = ()
    generator_optimizer: AdamConfig = AdamConfig()
    discriminator_optimizer: AdamConfig = AdamConfig()
    ema: EMAConfig = EMAConfig()
    augment: Augment | None = None
    """Of what D sees."""
    mirror: bool = False
    """Show half of the items mirrored, left to right."""


class Critic:
    """Losses of one patch discriminator and of the generator that it judges."""

    def __init__(self, discriminator: PatchDiscriminator, config: TranslationConfig, compute: Compute) -> None:
        self.discriminator = discriminator
        self.config = config
        self.compute = compute

    def discriminator_loss(self, real: Tensor, fake: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of D on items [N, C, ...], penalties included, and scalars to report."""
        self.discriminator.requires_grad_(True)
        # In one pass, which is faster than two and updates a spectral norm once.
        real_logits, fake_logits = self._logits(torch.cat([real, fake])).chunk(2)
        loss = self.config.objective.discriminator_loss(real_logits, fake_logits)
        scalars = {
            "loss/discriminator": loss,
            "logits/real": real_logits.mean(),
            "logits/fake": fake_logits.mean(),
            "logits/real_above_fake": (real_logits > fake_logits).float().mean(),
        }
        for penalty in self.config.penalties:
            if progress.step % penalty.every == 0:
                value = PENALTIES[penalty.name](self._mean_logits, real, fake, None)
                loss = loss + value * penalty.weight.at(progress.fraction) * penalty.every
                scalars[f"penalty/{penalty.name}"] = value
        return loss, scalars

    def feature_distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """How unlike D's hidden layers find items i of two batches; its gradient reaches `fake` alone.

        Mean over the layers of mean|D_l(real) - D_l(fake)| / mean|D_l(real)|: in units of the layer's own activations,
        so that a D whose activations grow does not raise the weight. D sees the items as they are, not augmented:
        chance would change the two differently.

        Reference: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", 2018,
        arXiv:1711.11585, eq. 4, which has no such units.
        """
        self.discriminator.requires_grad_(False)
        with torch.no_grad(), self.compute.autocast():
            wanted = self.discriminator.activations(real)[:-1]
        with self.compute.autocast():
            made = self.discriminator.activations(fake)[:-1]
        distances = [
            F.l1_loss(ours.float(), theirs.float()) / theirs.float().abs().mean().clamp(min=1e-6)
            for ours, theirs in zip(made, wanted, strict=True)
        ]
        return torch.stack(distances).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """The loss of G, whose gradient reaches `fake` and not D."""
        self.discriminator.requires_grad_(False)
        real_logits = None
        if self.config.objective.generator_needs_real_logits:
            with torch.no_grad():
                real_logits = self._logits(real)
        return self.config.objective.generator_loss(real_logits, self._logits(fake))

    def _logits(self, items: Tensor) -> Tensor:
        """Logits of each patch, as D sees it: augmented."""
        if self.config.augment is not None:
            items = self.config.augment(items)
        with self.compute.autocast():
            return self.discriminator(items).float()

    def _mean_logits(self, items: Tensor, _: Tensor | None) -> Tensor:
        """[N], so that a penalty's weight does not depend on how many patches there are."""
        return self._logits(items).flatten(1).mean(1)
