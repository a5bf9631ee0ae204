"""Penalties on a discriminator's gradients: functions of (discriminator, real_images, fake_images, y) -> scalar.

A penalty knows nothing of its weight or how often it is applied; a recipe's `[[penalties]]` says so.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from training.config import Section, key_of
from training.schedules import Anneal

Discriminator = Callable[[Tensor, Tensor | None], Tensor]
Penalty = Callable[[Discriminator, Tensor, Tensor, Tensor | None], Tensor]


def _squared_gradient_norm(discriminator: Discriminator, images: Tensor, y: Tensor | None) -> Tensor:
    """|grad_x D(x)|^2 per sample, over all of x's dimensions, [N]; differentiable once more."""
    x = images.detach().requires_grad_()
    # The sum's gradient holds each sample's own, because D couples no samples.
    (gradient,) = torch.autograd.grad(discriminator(x, y).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def r1(discriminator: Discriminator, real_images: Tensor, fake_images: Tensor, y: Tensor | None) -> Tensor:
    """mean |grad_x D(x)|^2 / 2 on real images; its weight is the papers' gamma.

    Reference: Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018, arXiv:1801.04406, eq. 9.
    """
    return _squared_gradient_norm(discriminator, real_images, y).mean() / 2


def r2(discriminator: Discriminator, real_images: Tensor, fake_images: Tensor, y: Tensor | None) -> Tensor:
    """mean |grad_x D(x)|^2 / 2 on generated images; its weight is the papers' gamma.

    Reference: as `r1`, section 4.1.
    """
    return _squared_gradient_norm(discriminator, fake_images, y).mean() / 2


PENALTIES: dict[str, Penalty] = {
    "r1": r1,
    "r2": r2,
}


class PenaltyConfig(Section):
    """An entry of `[[penalties]]`."""

    name: Annotated[str, key_of(PENALTIES, "penalty")]
    weight: Anneal
    """Gamma. R1 and R2 carry the factor 1/2 themselves."""
    every: int = Field(default=1, ge=1)
    """Lazy: applied every so many discriminator steps, and then that many times as heavily.

    Reference: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2019,
    arXiv:1912.04958, appendix B.
    """
