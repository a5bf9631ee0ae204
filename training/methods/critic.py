"""The discriminator with all that it is trained by, and the tables of a recipe that adversarial methods share."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from training.architectures import (
    PATCH_DISCRIMINATORS,
    TRANSLATORS,
    PatchDiscriminatorConfig,
    TranslatorConfig,
)
from training.augment import JITTERS, Augment
from training.compute import Compute
from training.config import Section, choice, key_of
from training.ema import EMAConfig
from training.objectives import OBJECTIVES, AbstractObjective
from training.optimizers import AdamConfig
from training.penalties import PENALTIES, PenaltyConfig


class TwoPlayerConfig(Section):
    """The tables of every method in which a generator plays against a discriminator."""

    objective: Annotated[AbstractObjective, choice(OBJECTIVES, "objective")]
    penalties: tuple[PenaltyConfig, ...] = ()
    generator_optimizer: AdamConfig = AdamConfig()
    discriminator_optimizer: AdamConfig = AdamConfig()
    ema: EMAConfig = EMAConfig()
    augment: Augment | None = None
    """Of what D sees."""


class TranslationConfig(TwoPlayerConfig):
    """The tables and keys that every method which translates has."""

    generator: Annotated[TranslatorConfig, choice(TRANSLATORS, "generator architecture", key="architecture")]
    discriminator: Annotated[
        PatchDiscriminatorConfig, choice(PATCH_DISCRIMINATORS, "patch discriminator", key="architecture")
    ]
    adversarial_weight: float = Field(default=1.0, ge=0)
    """Of the objective in the generator's loss."""
    jitter: tuple[Annotated[str, key_of(JITTERS, "jitter")], ...] = ()
    """How items are changed at random before anything sees them, a source and its target alike."""


class Critic:
    """Losses of one discriminator and of the generator that it judges.

    A discriminator takes items [N, C, ...] and labels y [N], None if they have none, and gives logits [N, ...]: one for
    each item, or for each patch of it.
    """

    def __init__(
        self, discriminator: nn.Module, config: TwoPlayerConfig, compute: Compute, *, compares_pairs: bool = False
    ) -> None:
        """
        Args:
            compares_pairs: whether row i of what is real belongs to row i of what is fake. Then both are augmented
                alike, or an objective that compares them would compare one patch with another.
        """
        self.discriminator = discriminator
        self.config = config
        self.compute = compute
        self.compares_pairs = compares_pairs

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, y: Tensor | None = None, *, step: int, fraction: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of D, penalties included, and scalars to report.

        Args:
            real: items [N, C, ...] in [-1, 1].
            fake: items of the same shape and labels.
            y: their labels [N], if they have any.
            step: of D; some penalties come every few.
            fraction: of the training, in [0, 1], which weights may follow.
        """
        self.discriminator.requires_grad_(True)
        # In one pass, which is faster than two and updates a spectral norm once.
        if self.compares_pairs:
            both = torch.cat(self._augmented(real, fake))
        else:
            (both,) = self._augmented(torch.cat([real, fake]))
        logits = self._logits(both, None if y is None else torch.cat([y, y]))
        real_logits, fake_logits = logits.chunk(2)
        loss = self.config.objective.discriminator_loss(real_logits, fake_logits)
        scalars = {
            "loss/discriminator": loss,
            "logits/real": real_logits.mean(),
            "logits/fake": fake_logits.mean(),
            "logits/real_above_fake": (real_logits > fake_logits).float().mean(),
        }
        for penalty in self.config.penalties:
            if step % penalty.every == 0:
                value = PENALTIES[penalty.name](self._mean_logits, real, fake, y)
                loss = loss + value * penalty.weight.at(fraction) * penalty.every
                scalars[f"penalty/{penalty.name}"] = value
        return loss, scalars

    def generator_loss(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        """The loss of G, whose gradient reaches `fake` and not D."""
        self.discriminator.requires_grad_(False)
        needs_real = self.config.objective.generator_needs_real_logits
        if self.compares_pairs and needs_real:
            real, fake = self._augmented(real, fake)
        else:
            (fake,) = self._augmented(fake)
            if needs_real:
                (real,) = self._augmented(real)
        fake_logits = self._logits(fake, y)
        real_logits = None
        if needs_real:
            with torch.no_grad():
                real_logits = self._logits(real, y)
        return self.config.objective.generator_loss(real_logits, fake_logits)

    def _augmented(self, *aligned: Tensor) -> tuple[Tensor, ...]:
        """Items as D sees them, row i of each changed alike."""
        return aligned if self.config.augment is None else self.config.augment.alike(*aligned)

    def _logits(self, items: Tensor, y: Tensor | None) -> Tensor:
        with self.compute.autocast():
            logits: Tensor = self.discriminator(items, y)
        return logits.float()

    def _mean_logits(self, items: Tensor, y: Tensor | None) -> Tensor:
        """[N], so that a penalty's weight does not depend on how many patches there are."""
        (items,) = self._augmented(items)
        logits = self._logits(items, y)
        return logits.view(len(logits), -1).mean(1)
