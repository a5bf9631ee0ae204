"""The way between samples: latents on the sphere, one frame for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from service.bundle import Bundle
from service.latents import Latents, draw, slerp
from service.pixels import Pixels
from service.sample import Sample
from service.work import Work, keep


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

    @property
    def _legs(self) -> list[tuple[Sample, Sample]]:
        following = [*self.points[1:], self.points[0]]
        legs = list(zip(self.points, following, strict=True))
        return legs if self.loop else legs[:-1]

    def works(self) -> Iterator[Work[Pixels]]:
        """The work that makes the frames, piece by piece."""
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
            yield self.bundle.latent_work(z, [label for _, label in piece], keep)

    def _latent(self, start: Sample, end: Sample, t: float) -> Latents:
        latent = self.bundle.manifest.latent
        assert latent is not None
        a, b = draw([start.seed, end.seed], latent.z_dim, latent.scheme)
        return slerp(a, b, t)
