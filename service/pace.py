"""How fast a bundle's work is done: measured while warming up, then from batch to batch.

Whoever asks and whoever tells holds the batcher's lock.
"""

import math

WEIGHT_OF_LATEST = 0.1
"""Weight of the latest batch in the measured speed, if it is a full one. What a run costs besides its pixels weighs
most in small ones, and says little of the time that a full queue takes."""
OUTLIER = 4.0
"""A batch counts as having taken at most so many times as long as expected: a process that stood still for half a
minute says nothing of the next one.
"""
DEVIATIONS = 2.0
"""Work is done in time if it is so also where all batches are slower than on average by so many mean deviations."""


class Pace:
    """Of one runner, in seconds for a pixel: a graph that takes any size is given rows of a hundred pixels, and of a
    hundred thousand.

    Args:
        seconds_per_pixel: to begin with.
        max_pixels: most pixels that may come out of a batch.
        batch_seconds: no batch has more pixels than what takes so long.
    """

    def __init__(
        self, seconds_per_pixel: float = 1e-6, *, max_pixels: int = 2**20, batch_seconds: float = math.inf
    ) -> None:
        self.seconds_per_pixel = seconds_per_pixel
        self.at_best = seconds_per_pixel
        """The least that it has been. What takes too long even so need not be tried; with what the machine takes while
        it is busy, large work would be refused until smaller work had shown that it no longer is."""
        self.batch_seconds = batch_seconds
        self._pixels_allowed = max_pixels
        self._deviation = 0.0
        self._turn_seconds = 0.0

    @property
    def max_pixels(self) -> int:
        """Most pixels that come out of a batch now; a machine that was busy at the start has its speed in time."""
        if self.batch_seconds >= self._pixels_allowed * self.seconds_per_pixel:
            return self._pixels_allowed
        return max(1, int(self.batch_seconds / self.seconds_per_pixel))

    def has_run(self, pixels: float, seconds: float) -> None:
        """A batch has taken so long. Mean and mean deviation, as TCP reckons its timeouts: RFC 6298, section 2."""
        weight = WEIGHT_OF_LATEST * min(1.0, pixels / self.max_pixels)
        off = min(seconds / pixels, OUTLIER * self.seconds_per_pixel) - self.seconds_per_pixel
        self._deviation += weight * (abs(off) - self._deviation)
        self.seconds_per_pixel += weight * off
        self.at_best = min(self.at_best, self.seconds_per_pixel)

    def has_waited(self, seconds: float) -> None:
        """A batch has waited so long for its turn, while other bundles had theirs."""
        self._turn_seconds += WEIGHT_OF_LATEST * (seconds - self._turn_seconds)

    def seconds_for(self, pixels: float, *, at_worst: bool = False) -> float:
        """That a runner takes for so many pixels, other bundles' turns between its batches included."""
        per_pixel = self.seconds_per_pixel + (DEVIATIONS * self._deviation if at_worst else 0.0)
        turns = pixels / self.max_pixels + 1 if pixels else 0
        return pixels * per_pixel + turns * self._turn_seconds
