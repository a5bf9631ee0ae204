"""Pictures, and seeds where the bundle takes z, to pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from service.errors import InvalidBundle
from service.generator import MAX_BATCH, WARM_UP_ROWS, AbstractTask, Feed, Generator, Tensors, Trial
from service.golden import GoldenReport, check_golden_translations
from service.latents import draw
from service.manifest import Manifest
from service.pixels import Pixels
from service.tiling import rounded_up, tile_side

SMALL = 32
"""Pixels, about: height of the smaller pictures that a graph for any size is tried on; they are a little wider."""
MEDIUM = 96
"""The same of the larger ones. Not a whole tile: a bundle's trials should add little to the time of every start."""
MAX_BATCH_PIXELS = 2 * 2**20
"""Of the pictures that go into one batch: a network holds a hundred numbers and more for each while it runs."""


class Translate(AbstractTask):
    """image[, z] -> picture."""

    # A row is a whole picture's work: on their own, rows lose little, and a fixed number of them would waste much.
    batches = ()

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        assert manifest.input is not None
        source, target = manifest.input, manifest.output
        self._latent = manifest.latent
        self._channels = target.channels
        self.source = source
        self.any_size = source.height is None
        if {source.height is None, source.width is None} != {target.height is None, target.width is None}:
            raise InvalidBundle("manifest input, output: both have a height and a width, or neither has any")
        if self.any_size and (side := self.largest[0]) ** 2 > MAX_BATCH_PIXELS:
            raise InvalidBundle(
                f"manifest input: with a halo of {source.halo} and multiples of {source.multiple_of} a tile is "
                f"{side} x {side}; at most {MAX_BATCH_PIXELS} pixels are run at once"
            )
        if manifest.classes is not None or (self._latent is not None and self._latent.truncation is not None):
            raise InvalidBundle("manifest: a translator knows neither classes nor truncation")

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest picture that is computed in one piece."""
        source = self.source
        if source.height is not None and source.width is not None:
            return source.height, source.width
        assert source.halo is not None
        side = tile_side(source.halo, source.multiple_of)
        return side, side

    @property
    def inputs(self) -> Tensors:
        source = self.source
        inputs: Tensors = {"image": ("tensor(uint8)", [source.height, source.width, source.channels])}
        if self._latent is not None:
            inputs["z"] = ("tensor(float)", [self._latent.z_dim])
        return inputs

    @property
    def max_pixels(self) -> int:
        output = self.manifest.output
        if output.height is None or output.width is None:
            return MAX_BATCH_PIXELS
        height, width = self.largest
        rows = max(1, min(MAX_BATCH, MAX_BATCH_PIXELS // (height * width)))
        return rows * output.height * output.width

    def shape(self, feed: Feed) -> tuple[int, ...]:
        output = self.manifest.output
        height, width = feed["image"].shape[1:3]
        return output.height or height, output.width or width, self._channels

    def feed(self, images: Pixels, seeds: Sequence[int | None]) -> Feed:
        """What the graph takes for pictures, uint8 [N, height, width, channels], and a seed for each.

        Raises:
            InvalidLatent: if the bundle's scheme does not know a seed.
        """
        feed: Feed = {"image": images}
        if self._latent is not None:
            feed["z"] = draw([seed or 0 for seed in seeds], self._latent.z_dim, self._latent.scheme)
        return feed

    def trials(self) -> Sequence[Trial]:
        """A size that is fixed; else a small one in any company, and a larger one, of which few rows are affordable."""
        if not self.any_size:
            return [Trial(self._noise(WARM_UP_ROWS, *self.largest))]
        step = self.source.multiple_of
        small, medium = rounded_up(SMALL, step), rounded_up(MEDIUM, step)
        return [
            Trial(self._noise(WARM_UP_ROWS, small, small + step)),
            Trial(self._noise(2, *[min(medium, side) for side in self.largest]), companies=((1,),)),
        ]

    def check_golden(self, content: bytes | None, run: Callable[[Feed], Pixels], provider: str) -> GoldenReport:
        def translate(images: Pixels, seeds: Sequence[int]) -> Pixels:
            return run(self.feed(images, seeds))

        return check_golden_translations(self.manifest, content, translate, provider)

    def _noise(self, rows: int, height: int, width: int) -> Feed:
        rng = np.random.default_rng(0)
        return self.feed(rng.integers(0, 256, (rows, height, width, self.source.channels), np.uint8), range(rows))


@dataclass(frozen=True)
class Shown:
    """Feeds pictures, each with the same seed."""

    images: Pixels
    """uint8 [N, height, width, channels]."""
    seed: int | None
    """None if the graph takes no z."""

    def __str__(self) -> str:
        height, width = self.images.shape[1:3]
        return f"{len(self.images)} pictures of {width}x{height}"

    def __call__(self, generator: Generator) -> Feed:
        assert isinstance(generator.task, Translate)
        return generator.task.feed(self.images, [self.seed] * len(self.images))
