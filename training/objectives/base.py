"""What every objective is: two losses that know logits, not networks."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from training.config import Component


class AbstractObjective(Component, ABC):
    """A discriminator loss and a generator loss, both to be minimised; logits are unbounded, [N]."""

    generator_needs_real_logits: ClassVar[bool] = False
    """Whether the generator's loss looks at the real logits; if not, they are not computed and None is passed."""

    @abstractmethod
    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Scalar loss of D; the smaller, the better D tells real from fake."""

    @abstractmethod
    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """Scalar loss of G; the smaller, the better G fools D."""
