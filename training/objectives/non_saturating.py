from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from training.objectives.base import AbstractObjective


@dataclass(frozen=True)
class NonSaturating(AbstractObjective):
    """Cross-entropy for D; G maximises log sigmoid(D(G(z))), whose gradient does not vanish while D is winning.

    D: mean(softplus(-D(x))) + mean(softplus(D(G(z))))
    G: mean(softplus(-D(G(z))))

    Reference: Goodfellow et al., "Generative Adversarial Networks", 2014, section 3, arXiv:1406.2661.
    """

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def generator_loss(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()
