"""Outputs of the past, so that a discriminator does not forget what it has seen."""

import torch
from torch import Tensor


class Pool:
    """Keeps up to `size` items; half of the time an old one is handed out and the new one kept in its place.

    Draws from torch's global CPU generator; `items` is all else that must survive a restart.

    Reference: Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training", 2016,
    arXiv:1612.07828, section 2.3.
    """

    def __init__(self, size: int) -> None:
        """
        Args:
            size: 0 hands out what comes in.
        """
        self.size = size
        self.items = torch.empty(0)

    def exchange(self, new: Tensor) -> Tensor:
        """As many items as came in [N, ...], some of them of the past."""
        if not self.size:
            return new
        handed_out = []
        for item in new.detach():
            if len(self.items) < self.size:
                self.items = torch.cat([self.items.to(item), item[None]]) if len(self.items) else item[None].clone()
                handed_out.append(item)
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                handed_out.append(self.items[place].clone())
                self.items[place] = item
            else:
                handed_out.append(item)
        return torch.stack(handed_out)
