"""Exponential moving average of a network's weights, measured in images and not in steps."""

import copy
from typing import Generic, TypeVar

import torch
from pydantic import Field
from torch import nn

from training.config import Section

Network = TypeVar("Network", bound=nn.Module)


class EMAConfig(Section):
    """The `[ema]` table."""

    halflife_kimg: float = Field(default=20.0, gt=0)
    """Thousands of images after which a weight counts half."""
    rampup: float = Field(default=0.05, gt=0)
    """Early on, the half-life is at most this share of the images seen; a large number makes it constant.

    Reference: Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020, arXiv:2006.06676; the
    ramp is that of its published configurations.
    """


class EMA(Generic[Network]):
    """Keeps `average`, a copy of a network that lags behind it."""

    def __init__(self, network: Network, config: EMAConfig) -> None:
        self.average: Network = copy.deepcopy(network).eval().requires_grad_(False)
        self.config = config

    @torch.no_grad()
    def update(self, network: nn.Module, *, nimg: int, batch_size: int) -> None:
        """Move the average towards `network`.

        Args:
            nimg: images so far, as the loop counts them: generator steps times batch size.
            batch_size: images since the last update.
        """
        halflife = min(self.config.halflife_kimg * 1000, self.config.rampup * nimg)
        weight = 1 - 0.5 ** (batch_size / max(halflife, 1e-8))
        torch._foreach_lerp_(list(self.average.parameters()), list(network.parameters()), weight)
        for average, current in zip(self.average.buffers(), network.buffers(), strict=True):
            average.copy_(current)
