from dataclasses import dataclass

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from training.ties.base import AbstractTie, Bridge


@dataclass(frozen=True)
class Cycle(AbstractTie):
    """There and back again must give the input; and what is of the target domain already stays as it is.

    cycle: |A(B(a)) - a| + |B(A(b)) - b|
    identity: |B(b) - b| + |A(a) - a|, which needs domains of the same channels

    Reference: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017,
    arXiv:1703.10593, eq. 2 and section 5.2.
    """

    weight: NonNegativeFloat = 10.0
    identity_weight: NonNegativeFloat = 5.0

    def losses(self, bridge: Bridge) -> dict[str, tuple[float, Tensor]]:
        there_and_back = F.l1_loss(bridge.to_a(bridge.a_to_b), bridge.a) + F.l1_loss(
            bridge.to_b(bridge.b_to_a), bridge.b
        )
        losses = {"loss/cycle": (self.weight, there_and_back)}
        if self.identity_weight:
            unchanged = F.l1_loss(bridge.to_b(bridge.b), bridge.b) + F.l1_loss(bridge.to_a(bridge.a), bridge.a)
            losses["loss/identity"] = (self.identity_weight, unchanged)
        return losses
