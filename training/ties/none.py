from dataclasses import dataclass

from torch import Tensor

from training.ties.base import AbstractTie, Bridge


@dataclass(frozen=True)
class NoTie(AbstractTie):
    """Nothing but the discriminators: an output must look like its domain, and keeps to its input only as far as a
    shallow generator finds that easiest.

    Reference: Zhu et al., 2017, arXiv:1703.10593, section 3.1: the adversarial loss alone.
    """

    def losses(self, bridge: Bridge) -> dict[str, tuple[float, Tensor]]:
        return {}
