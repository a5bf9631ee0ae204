"""How unlike outputs and targets are: functions of two batches [N, C, ...] in [-1, 1] -> scalar, 0 if they are equal.

A distance knows nothing of its weight; a recipe's `[[reconstruction]]` says so.
"""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from training.config import RecipeError, Section, key_of

Distance = Callable[[Tensor, Tensor], Tensor]

LEAST_SIDE = 6
"""Pixels: what the window of 11 finds beyond an edge is mirrored, and there must be 5 beside it to mirror."""


def l1(output: Tensor, target: Tensor) -> Tensor:
    """mean |output - target|, of items of any kind."""
    return F.l1_loss(output, target)


def structure(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM, of pictures: edges and contrasts within 11 pixels, which L1 trades for a smooth mean.

    SSIM compares intensities that are not negative: of [-1, 1] itself mid-grey would be 0, and 0 is like nothing else.

    References: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, eq. 13;
    as a loss beside L1: Zhao et al., "Loss Functions for Image Restoration with Neural Networks", 2017,
    arXiv:1511.08861, section 3.
    """
    if output.ndim != 4:
        raise RecipeError(f"structure compares pictures [N, C, H, W], not {list(output.shape)}; use l1")
    if min(output.shape[2:]) < LEAST_SIDE:
        height, width = output.shape[2:]
        raise RecipeError(
            f"structure compares pictures of at least {LEAST_SIDE} x {LEAST_SIDE} pixels, and these are "
            f"{height} x {width}; take larger ones, or l1"
        )
    similarity = structural_similarity_index_measure((output + 1) / 2, (target + 1) / 2, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return 1 - similarity


DISTANCES: dict[str, Distance] = {
    "l1": l1,
    "structure": structure,
}


class DistanceConfig(Section):
    """An entry of `[[reconstruction]]`."""

    name: Annotated[str, key_of(DISTANCES, "distance")]
    weight: float = Field(gt=0)
