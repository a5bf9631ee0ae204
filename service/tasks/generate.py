"""Seeds, and classes where the bundle knows them, to pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.errors import InvalidBundle
from service.generator import MAX_BATCH, WARM_UP_ROWS, AbstractTask, Feed, Generator, Tensors, Trial
from service.golden import GoldenReport, check_golden
from service.latents import Latents, draw, slerp
from service.manifest import Manifest
from service.pixels import Pixels
from service.sample import Sample


class Generate(AbstractTask):
    """z[, y][, psi] -> picture."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        assert manifest.latent is not None
        self._latent = manifest.latent
        self._num_classes = len(manifest.classes or ())
        output = manifest.output
        if output.height is None or output.width is None:
            raise InvalidBundle("manifest output: a generator of pictures from seeds needs a height and a width")
        self._shape = (output.height, output.width, output.channels)

    @property
    def inputs(self) -> Tensors:
        inputs: Tensors = {"z": ("tensor(float)", [self._latent.z_dim])}
        if self._num_classes:
            inputs["y"] = ("tensor(int64)", [])
        if self._latent.truncation:
            inputs["psi"] = ("tensor(float)", [])
        return inputs

    @property
    def max_pixels(self) -> int:
        height, width, _ = self._shape
        return MAX_BATCH * height * width

    def shape(self, feed: Feed) -> tuple[int, ...]:
        return self._shape

    def feed(self, seeds: Sequence[int], labels: Sequence[int | None], truncation: Sequence[float]) -> Feed:
        """What the graph takes for seeds: z, and y and psi if it knows them; [N, ...] each.

        Raises:
            InvalidLatent: if the bundle's scheme does not know a seed.
        """
        z = draw(seeds, self._latent.z_dim, self._latent.scheme)
        return self._conditioned(z, labels, truncation)

    def feed_between(self, places: Sequence["Place"]) -> Feed:
        """The same for places between samples.

        Raises:
            InvalidLatent: if the bundle's scheme does not know a seed.
        """
        seeds = list({sample.seed for start, end, _ in places for sample in (start, end)})
        z_of = dict(zip(seeds, draw(seeds, self._latent.z_dim, self._latent.scheme), strict=True))
        z = np.stack([slerp(z_of[start.seed], z_of[end.seed], t) for start, end, t in places])
        return self._conditioned(z, [(start if t < 0.5 else end).label for start, end, t in places], [1.0] * len(z))

    def _conditioned(self, z: Latents, labels: Sequence[int | None], truncation: Sequence[float]) -> Feed:
        feed: Feed = {"z": z}
        if self._num_classes:
            feed["y"] = np.array(labels, np.int64)
        if self._latent.truncation:
            feed["psi"] = np.array(truncation, np.float32)
        return feed

    def trials(self) -> Sequence[Trial]:
        last = self._num_classes - 1  # the first class, the last one, and some between
        labels = [row * last // (WARM_UP_ROWS - 1) if self._num_classes else None for row in range(WARM_UP_ROWS)]
        return [Trial(self.feed(range(WARM_UP_ROWS), labels, [1.0] * WARM_UP_ROWS))]

    def check_golden(self, content: bytes | None, run: Callable[[Feed], Pixels], provider: str) -> GoldenReport:
        def make(seeds: Sequence[int], labels: Sequence[int | None]) -> Pixels:
            return run(self.feed(seeds, labels, [1.0] * len(seeds)))

        return check_golden(self.manifest, content, make, provider)


@dataclass(frozen=True)
class Drawn:
    """Feeds the latents that samples' seeds draw."""

    samples: Sequence[Sample]

    def __str__(self) -> str:
        return ", ".join(sample.id for sample in self.samples)

    def __call__(self, generator: Generator) -> Feed:
        assert isinstance(generator.task, Generate)
        return generator.task.feed(
            [sample.seed for sample in self.samples],
            [sample.label for sample in self.samples],
            [sample.truncation for sample in self.samples],
        )


class Place(NamedTuple):
    """A place on the sphere between two samples; both are taken without their truncation."""

    start: Sample
    end: Sample
    t: float
    """0 is the start, 1 the end; the class changes half way."""


@dataclass(frozen=True)
class Between:
    """Feeds the latents of such places. They are drawn where the graph runs: hundreds of them take a second."""

    places: Sequence[Place]

    def __str__(self) -> str:
        return ", ".join(f"{t:.3g} from {start.id} to {end.id}" for start, end, t in self.places)

    def __call__(self, generator: Generator) -> Feed:
        assert isinstance(generator.task, Generate)
        return generator.task.feed_between(self.places)
