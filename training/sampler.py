"""In which order the data are seen; a position that can be saved."""

import torch
from torch import Tensor


class EpochSampler:
    """Indices of a new random permutation each epoch, without end.

    The order is a function of (seed, epoch), so epoch and cursor are all its state.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        """
        Args:
            size: items in the data set.
            batch_size: indices per draw, at most `size`; the rest of an epoch that fills no batch is passed over.
        """
        assert batch_size <= size
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.cursor = 0
        self._order = self._permutation()

    def draw(self) -> Tensor:
        """int64 [batch_size]."""
        if self.cursor + self.batch_size > self.size:
            self.epoch += 1
            self.cursor = 0
            self._order = self._permutation()
        indices = self._order[self.cursor : self.cursor + self.batch_size]
        self.cursor += self.batch_size
        return indices

    def reseed(self, seed: int) -> None:
        """Go on in another order; the place in the epoch stays."""
        self.seed = seed
        self._order = self._permutation()

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.cursor = state["epoch"], state["cursor"]
        self.reseed(state["seed"])

    def _permutation(self) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return torch.randperm(self.size, generator=generator)
