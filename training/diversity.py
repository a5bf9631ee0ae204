"""How different samples are from one another, compared with how different the data are: the sign of mode collapse."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from training.datasets import Pictures

PER_CLASS = 32
MAX_CLASSES = 20


class RandomFeatures(nn.Module):
    """64 features of a convolutional network that nobody trained: always at hand, the same for everyone.

    Reference: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020, arXiv:2002.09797,
    section 4.3, who recommend random embeddings where pretrained ones do not fit the data.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # torch.manual_seed would reset the GPUs' as well
            self.body = nn.Sequential(
                nn.Conv2d(channels, 16, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(16, 32, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(32, 64, 3, padding=1),
                nn.AdaptiveAvgPool2d(4),
                nn.Flatten(),
                nn.Linear(1024, 64),
            )
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 64] of images [N, C, H, W] in [-1, 1]."""
        features: Tensor = self.body(images)
        return features


def spread(features: Tensor) -> float:
    """Mean Euclidean distance between two different rows of features [N, d], N at least 2."""
    return float(torch.pdist(features).mean())


class Diversity:
    """Compares samples with the data, class by class, on a few pictures of each."""

    def __init__(self, data: Pictures) -> None:
        self._features = RandomFeatures(data.pixels.shape[1])
        self._spreads: dict[int, float] = {}
        for label in range(max(1, len(data.classes)))[:MAX_CLASSES]:
            of_class = torch.nonzero(data.labels == label).squeeze(1)[:PER_CLASS]
            if len(of_class) < 2:
                continue  # one picture differs from nothing
            images, _ = data.batch(of_class)
            self._spreads[label] = spread(self._features(images))

    def __call__(self, sample: Callable[[Sequence[int], Sequence[int]], Tensor]) -> float | None:
        """Mean over the classes of samples' spread over the data's; None if no class has two pictures that differ.

        Args:
            sample: (seeds, labels) -> images [N, C, H, W] in [-1, 1].
        """
        ratios = [
            spread(self._features(sample(range(PER_CLASS), [label] * PER_CLASS).cpu())) / real
            for label, real in self._spreads.items()
            if real > 0
        ]
        return float(np.mean(ratios)) if ratios else None
