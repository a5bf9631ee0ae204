"""Differentiable augmentation of what the discriminator sees, for small data sets.

Reals and fakes get the same kind of change, so D cannot learn the data by heart, and G is not taught to make it.

Reference: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, arXiv:2006.10738.
"""

from collections.abc import Callable

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from training.config import Section, lookup


def translation(images: Tensor, share: float = 0.125) -> Tensor:
    """Shift by up to `share` of the size along each axis; what enters is zero (mid-grey)."""
    n, _, height, width = images.shape
    dy, dx = (int(size * share + 0.5) for size in (height, width))
    shift_y = torch.randint(-dy, dy + 1, (n, 1, 1), device=images.device)
    shift_x = torch.randint(-dx, dx + 1, (n, 1, 1), device=images.device)
    padded = F.pad(images, (dx, dx, dy, dy))
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + shift_y + dy
    columns = torch.arange(width, device=images.device).view(1, 1, -1) + shift_x + dx
    sample = torch.arange(n, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2)


def cutout(images: Tensor, share: float = 0.5) -> Tensor:
    """Set a square of `share` of the size, centred anywhere, to zero (mid-grey)."""
    n, _, height, width = images.shape
    high, wide = int(height * share + 0.5), int(width * share + 0.5)
    # The square's middle lies anywhere in the image, so a part of the square may lie outside.
    top = torch.randint(0, height + 1 - high % 2, (n, 1, 1), device=images.device) - high // 2
    left = torch.randint(0, width + 1 - wide % 2, (n, 1, 1), device=images.device) - wide // 2
    rows = torch.arange(height, device=images.device).view(1, -1, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, -1)
    inside = (rows >= top) & (rows < top + high) & (columns >= left) & (columns < left + wide)
    return images * ~inside.unsqueeze(1)


def colour(images: Tensor) -> Tensor:
    """Random brightness, saturation and contrast, in this order."""
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, device=images.device)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (saturation * 2)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def mirrored(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Row i of every tensor [N, ..., W] mirrored along its last axis, or of none: a toss for each row."""
    toss = torch.rand(len(tensors[0])) < 0.5
    return tuple(
        torch.where(toss.to(tensor.device).view(-1, *[1] * (tensor.ndim - 1)), tensor.flip(-1), tensor)
        for tensor in tensors
    )


POLICIES: dict[str, Callable[[Tensor], Tensor]] = {
    "colour": colour,
    "cutout": cutout,
    "translation": translation,
}


class Augment(Section):
    """The `[augment]` table."""

    policies: tuple[str, ...] = ("translation", "cutout")
    probability: float = Field(default=1.0, gt=0, le=1)
    """Share of the images that each policy changes."""

    @field_validator("policies")
    @classmethod
    def _are_known(cls, policies: tuple[str, ...]) -> tuple[str, ...]:
        for policy in policies:
            lookup(POLICIES, policy, "augmentation policy")
        return policies

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [-1, 1], changed at random; gradients pass through."""
        for policy in self.policies:
            changed = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
            images = torch.where(changed, POLICIES[policy](images), images)
        return images
