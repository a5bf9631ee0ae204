from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from training.objectives.base import AbstractObjective


@dataclass(frozen=True)
class Relativistic(AbstractObjective):
    """Each fake is judged against a real one, which removes the basins where modes are dropped.

    D: mean(softplus(-(D(x) - D(G(z)))))
    G: mean(softplus(-(D(G(z)) - D(x))))

    It needs the penalties R1 and R2 to converge.

    Reference: Jolicoeur-Martineau, "The relativistic discriminator", 2018, arXiv:1807.00734 (RpGAN);
    Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", 2024, arXiv:2501.05441, eq. 2.
    """

    generator_needs_real_logits: ClassVar[bool] = True

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(fake_logits - real_logits).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None
        return F.softplus(real_logits - fake_logits).mean()
