from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from training.objectives.base import AbstractObjective


@dataclass(frozen=True)
class Hinge(AbstractObjective):
    """Penalise logits only on the wrong side of the margin.

    D: mean(relu(1 - D(x))) + mean(relu(1 + D(G(z))))
    G: -mean(D(G(z)))

    Reference: Lim & Ye, "Geometric GAN", 2017, arXiv:1705.02894.
    """

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
