"""What every tie is: further losses of the two generators, over items and not over networks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from training.config import Component


@dataclass(frozen=True)
class Bridge:
    """One step's items and generators, both ways; all items in [-1, 1]."""

    a: Tensor
    """Real items of the first domain, [N, C, ...]."""
    b: Tensor
    """Real items of the second, which belong to nothing in `a`."""
    a_to_b: Tensor
    """Outputs of `to_b` for `a`, with their gradient."""
    b_to_a: Tensor
    to_b: Callable[[Tensor], Tensor]
    to_a: Callable[[Tensor], Tensor]


class AbstractTie(Component, ABC):
    """A frozen dataclass of weights; a tie that needs a network of its own, frozen, holds it."""

    @abstractmethod
    def losses(self, bridge: Bridge) -> dict[str, tuple[float, Tensor]]:
        """(weight, scalar) by the name under which it is reported; the generators minimise the weighted sum."""
