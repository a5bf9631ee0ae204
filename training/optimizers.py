"""Optimisers and how their settings change over a run."""

from pydantic import Field, field_validator
from torch import nn
from torch.optim import Adam, Optimizer

from training.config import Section
from training.schedules import Anneal


class AdamConfig(Section):
    """A `[*_optimizer]` table. No momentum: the adversary moves, and yesterday's direction is wrong today.

    Reference: Kingma & Ba, "Adam", 2014, arXiv:1412.6980.
    """

    learning_rate: Anneal = Anneal(start=2e-4, end=5e-5)
    beta1: float = Field(default=0.0, ge=0, lt=1)
    beta2: Anneal = Anneal(start=0.9, end=0.99)

    @field_validator("beta2")
    @classmethod
    def _is_a_share(cls, beta2: Anneal) -> Anneal:
        if not max(beta2.start, beta2.end) < 1:
            raise ValueError("must stay below 1")
        return beta2

    def build(self, network: nn.Module) -> Optimizer:
        """Adam over the network's own parameters."""
        return Adam(
            network.parameters(),
            lr=self.learning_rate.start,
            betas=(self.beta1, self.beta2.start),
            eps=1e-8,
            fused=True,
        )

    def anneal(self, optimizer: Optimizer, fraction: float) -> None:
        """Set what the schedule says at `fraction` of the run."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate.at(fraction)
            group["betas"] = (self.beta1, self.beta2.at(fraction))
