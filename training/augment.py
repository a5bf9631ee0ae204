"""Augmentation for small data sets: of what the discriminator sees, and of the data themselves.

`Augment` changes reals and fakes alike and lets gradients pass, so D cannot learn the data by heart, and G is not
taught to make the change. `jitter` changes items before anything sees them, an item and its target in the same way.

Reference: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, arXiv:2006.10738.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from training.config import Section, key_of


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


def mirrored(*aligned: Tensor) -> tuple[Tensor, ...]:
    """Half of the rows mirrored along their last axis."""
    toss = torch.rand(len(aligned[0])) < 0.5
    return tuple(torch.where(_beside(toss, items), items.flip(-1), items) for items in aligned)


def shifted(*aligned: Tensor, share: float = 0.125) -> tuple[Tensor, ...]:
    """Each row moved by up to `share` of the size along each axis; what enters repeats the border."""
    for axis in range(2, aligned[0].ndim):
        size = aligned[0].shape[axis]
        most = int(size * share + 0.5)
        place = torch.arange(size) + torch.randint(-most, most + 1, (len(aligned[0]), 1))
        shape = [len(place), *[1] * (axis - 1), size, *[1] * (aligned[0].ndim - axis - 1)]
        place = place.clamp(0, size - 1).view(shape)
        aligned = tuple(torch.take_along_dim(items, place.to(items.device), axis) for items in aligned)
    return aligned


def swapped(*aligned: Tensor) -> tuple[Tensor, ...]:
    """The channels of each row in a random order: red things become blue ones, what is white or black stays."""
    n, channels = aligned[0].shape[:2]
    order = torch.rand(n, channels).argsort(1)
    return tuple(torch.take_along_dim(items, _beside(order, items), 1) for items in aligned)


def _beside(values: Tensor, items: Tensor) -> Tensor:
    """`values` [N, ...] with as many axes as `items`, on their device."""
    return values.to(items.device).view(*values.shape, *[1] * (items.ndim - values.ndim))


POLICIES: dict[str, Callable[[Tensor], Tensor]] = {
    "colour": colour,
    "cutout": cutout,
    "translation": translation,
}


JITTERS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "channels": swapped,
    "mirror": mirrored,
    "shift": shifted,
}
"""Changes of batches [N, C, ...] that belong together: what happens to row i of one happens to row i of all."""


def jitter(names: tuple[str, ...], *aligned: Tensor) -> tuple[Tensor, ...]:
    """Batches [N, C, ...] of one shape, changed at random by each of `names` (keys of `JITTERS`) in turn."""
    for name in names:
        aligned = JITTERS[name](*aligned)
    return aligned


class Augment(Section):
    """The `[augment]` table."""

    policies: tuple[Annotated[str, key_of(POLICIES, "augmentation policy")], ...] = ("translation", "cutout")
    probability: float = Field(default=1.0, gt=0, le=1)
    """Share of the images that each policy changes."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in [-1, 1], changed at random; gradients pass through."""
        for policy in self.policies:
            changed = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
            images = torch.where(changed, POLICIES[policy](images), images)
        return images

    def alike(self, *aligned: Tensor) -> tuple[Tensor, ...]:
        """Images that belong together, [N, C, H, W] each: what happens to row i of one happens to row i of all.

        They are changed as further channels of one image, so with several, no policy may mix channels.
        """
        return self(torch.cat(aligned, 1)).split([images.shape[1] for images in aligned], 1)
