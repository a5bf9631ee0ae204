"""Line drawings out of the pictures of any set: pairs drawing -> picture."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage.feature import canny
from skimage.filters import difference_of_gaussians
from skimage.transform import downscale_local_mean, rescale
from tqdm import tqdm

from service.manifest import DataSource
from training.config import choice
from training.datasets.base import AbstractDataset, DatasetError, Pairs, Pictures, Split
from training.datasets.emoji import Emoji
from training.datasets.picture_sets import PICTURE_SETS

# Found by eye on Noto and Fluent 3D at 64 pixels: lines of 1 to 3 pixels that close, and faces that stay faces.
DOG_SIGMA = 0.7
DOG_RATIO = 1.6  # Marr & Hildreth 1980: as near as it comes to the Laplacian of a Gaussian
DOG_THRESHOLD = 0.006
DOG_GAIN = 60
CANNY_SIGMA = 1.0
CANNY_THRESHOLDS = (0.05, 0.1)

Detector = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Brightness [C, H, W] in [0, 1] -> ink [H, W] in [0, 1]."""


def difference_of_gaussians_ink(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ink where any channel is darker than its surroundings: dark lines, and the dark side of every edge.

    Reference: Winnemöller et al., "XDoG: An eXtended difference-of-Gaussians compendium", 2012, section 2.
    """
    responses = [difference_of_gaussians(c, DOG_SIGMA, DOG_SIGMA * DOG_RATIO, mode="nearest") for c in picture]
    darkest: NDArray[np.float64] = np.min(responses, axis=0)
    return np.clip((-darkest - DOG_THRESHOLD) * DOG_GAIN, 0, 1)


def canny_ink(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ink on the edges of any channel, found at twice the size and scaled back, so that lines have soft borders.

    Reference: Canny, "A Computational Approach to Edge Detection", 1986.
    """
    low, high = CANNY_THRESHOLDS
    large = [rescale(channel, 2, order=1) for channel in picture]
    edges = np.any(
        [canny(c, 2 * CANNY_SIGMA, low_threshold=low, high_threshold=high, mode="nearest") for c in large], axis=0
    )
    ink: NDArray[np.float64] = downscale_local_mean(binary_dilation(edges).astype(np.float64), (2, 2))
    return ink


DETECTORS: dict[str, Detector] = {
    "difference_of_gaussians": difference_of_gaussians_ink,
    "canny": canny_ink,
}


def line_drawing(pixels: NDArray[np.uint8], detector: str) -> NDArray[np.uint8]:
    """uint8 [1, H, W], dark lines on white, of a picture [C, H, W]."""
    ink = DETECTORS[detector](pixels.astype(np.float64) / 255)
    return np.round(255 * (1 - ink)).astype(np.uint8)[np.newaxis]


@dataclass(frozen=True)
class Edges(AbstractDataset):
    """Grey line drawings -> the pictures that they were made of. Held out is what the picture set holds out."""

    pictures: Annotated[AbstractDataset, choice(PICTURE_SETS, "set of pictures")] = Emoji()  # noqa: RUF009 - frozen
    """The table `[data.pictures]`, as the `[data]` of a recipe that learns to generate them."""
    detector: Literal["difference_of_gaussians", "canny"] = "difference_of_gaussians"

    def bring(self, source: Path | None = None) -> Path:
        return self.pictures.bring(source)

    def load(self, split: Split) -> Pairs:
        pictures = self.pictures.load(split)
        if not isinstance(pictures, Pictures):
            raise DatasetError(f"lines are drawn from pictures, and these data are {pictures}")
        drawings = [
            line_drawing(picture.numpy(), self.detector)
            for picture in tqdm(pictures.pixels, desc="drawing lines", unit="picture", leave=False, disable=None)
        ]
        keys = tuple(f"{split}-{index}" for index in range(len(pictures)))
        return Pairs(torch.from_numpy(np.stack(drawings)), pictures.pixels, keys)

    def card(self, *, size: int) -> DataSource:
        card = self.pictures.card(size=size)
        return card.model_copy(update={"name": f"line drawings ({self.detector}) of {card.name}"})
