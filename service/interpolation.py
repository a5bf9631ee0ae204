"""The way between samples: latents on the sphere, one frame for each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from service.bundle import Bundle
from service.pixels import Pixels
from service.sample import Sample, Several
from service.tasks.generate import Place
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
        points, step = self._leg_and_step(index)
        return Several({"interpolation": [point.id for point in points], "steps": self.steps, "step": step})

    def works(self, packing: Callable[[range], Callable[[Pixels], T]]) -> Iterator[Work[T]]:
        """The work that makes the frames, piece by piece.

        Args:
            packing: gives what is to become of the pixels of the frames of these indices.
        """
        indices, rows = range(len(self)), self.bundle.rows_per_batch
        for first in indices[::rows]:
            piece = indices[first : first + rows]
            yield self.bundle.work_between([self._place(index) for index in piece], packing(piece))

    def _leg_and_step(self, index: int) -> tuple[tuple[Sample, Sample], int]:
        """The points that a frame lies between, and how many steps behind the first."""
        leg = min(index // self.steps, len(self._legs) - 1)
        return self._legs[leg], index - leg * self.steps

    def _place(self, index: int) -> Place:
        (start, end), step = self._leg_and_step(index)
        return Place(start, end, step / self.steps)
