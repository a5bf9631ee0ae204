"""Numbers about sets of pictures, computed on features [N, d] that somebody else extracted."""

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from prdc import compute_prdc
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

Features = NDArray[np.float32]

NEAREST_K = 5
LEAST = NEAREST_K + 2
"""Features in a set: fewer have no neighbourhoods, as a point counts among its own neighbours and prdc looks one on."""
KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000


@dataclass(frozen=True)
class Score:
    """A number with the direction in which it improves."""

    value: float
    better: Literal["lower", "higher"]


class _AlreadyFeatures(nn.Module):
    """Stands where torchmetrics expects a network: the features have been extracted before."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Features, fake: Features) -> dict[str, Score]:
    """Squared 2-Wasserstein distance between Gaussians fitted to the two sets; wants N well above 10 d.

    Reference: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, arXiv:1706.08500, eq. 6.
    """
    metric = FrechetInceptionDistance(_AlreadyFeatures(real.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(fake).double(), real=False)
    return {"fd": Score(float(metric.compute()), "lower")}


def kernel_distance(real: Features, fake: Features) -> dict[str, Score]:
    """Unbiased squared MMD with the cubic polynomial kernel, mean over random subsets; can fall below 0.

    Reference: Binkowski et al., "Demystifying MMD GANs", 2018, arXiv:1801.01401, section 4.
    """
    subset_size = min(KERNEL_SUBSET_SIZE, len(real), len(fake))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features")  # features are small
        metric = KernelInceptionDistance(
            _AlreadyFeatures(real.shape[1]), subsets=KERNEL_SUBSETS, subset_size=subset_size
        )
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(fake), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        mean, _ = metric.compute()
    return {"kd": Score(float(mean), "lower")}


def manifold_scores(real: Features, fake: Features) -> dict[str, Score]:
    """Precision and recall, density and coverage, by the 5 nearest neighbours; memory grows with N^2.

    References: Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019, arXiv:1904.06991;
    Naeem et al., "Reliable Fidelity and Diversity Metrics", 2020, arXiv:2002.09797.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*sklearn.utils.parallel.delayed")  # prdc is older than this advice
        scores = compute_prdc(real, fake, nearest_k=NEAREST_K)
    return {name: Score(float(value), "higher") for name, value in scores.items()}


FEATURE_METRICS: dict[str, Callable[[Features, Features], dict[str, Score]]] = {
    "frechet_distance": frechet_distance,
    "kernel_distance": kernel_distance,
    "manifold_scores": manifold_scores,
}
"""Functions of (real features, other features); each gives one number or several that are computed together."""
