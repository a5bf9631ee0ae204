"""The way between samples: latents on the sphere, one frame for each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from service.bundle import Bundle
from service.latents import Latents, draw, slerp
from service.pixels import Pixels
from service.sample import Sample, Several
from service.work import Work

T = TypeVar("T")


@dataclass(frozen=True)
class Interpolation:
    """Frames through samples of one bundle.

    Args:
        bundle: that makes them.
        points: two or more, without truncation.
        steps: frames from one point to the next, the first of the two included.
        loop: whether the way leads back to the first point; else the last frame is the last point.
    """

    bundle: Bundle
    points: Sequence[Sample]
    steps: int
    loop: bool

    def __len__(self) -> int:
        return self.steps * len(self._legs) + (not self.loop)

    @property
    def pixels(self) -> int:
        """Of all frames together."""
        height, width, _ = self.bundle.shape
        return len(self) * height * width

    @cached_property
    def _legs(self) -> list[tuple[Sample, Sample]]:
        following = [*self.points[1:], self.points[0]]
        legs = list(zip(self.points, following, strict=True))
        return legs if self.loop else legs[:-1]

    @property
    def origin(self) -> Several:
        """Where all frames together come from."""
        points = [point.id for point in self.points]
        return Several({"interpolation": points, "steps": self.steps, "loop": self.loop})

    def origin_of(self, index: int) -> Several:
        """Where one frame comes from: the two points that it lies between, and how many steps behind the first."""
        leg = min(index // self.steps, len(self._legs) - 1)
        points = [point.id for point in self._legs[leg]]
        return Several({"interpolation": points, "steps": self.steps, "step": index - leg * self.steps})

    def works(self, packing: Callable[[range], Callable[[Pixels], T]]) -> Iterator[Work[T]]:
        """The work that makes the frames, piece by piece.

        Args:
            packing: gives what is to become of the pixels of the frames of these indices.
        """
        frames = [
            (self._latent(start, end, step / self.steps), (start if step < self.steps / 2 else end).label)
            for start, end in self._legs
            for step in range(self.steps)
        ]
        if not self.loop:
            last = self.points[-1]
            frames.append((self._latent(last, last, 0), last.label))
        rows = self.bundle.rows_per_batch
        for first in range(0, len(frames), rows):
            piece = frames[first : first + rows]
            z = np.stack([latent for latent, _ in piece])
            finish = packing(range(first, first + len(piece)))
            yield self.bundle.latent_work(z, [label for _, label in piece], finish)

    def _latent(self, start: Sample, end: Sample, t: float) -> Latents:
        latent = self.bundle.manifest.latent
        assert latent is not None
        a, b = draw([start.seed, end.seed], latent.z_dim, latent.scheme)
        return slerp(a, b, t)
