"""One bundle that has been verified, loaded and warmed: what a request asks in, work for its queue out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from service.batcher import Batcher, Observer, QueueLimits
from service.engine import Engine, Here
from service.errors import InvalidBundle, InvalidLatent, InvalidValue
from service.files import MAX_BUNDLE_BYTES, read_verified
from service.generator import MAX_BATCH, Feed, Generator, Measured
from service.golden import GoldenReport
from service.latents import SCHEMES, fresh_seed
from service.manifest import SAMPLES_FILE, Manifest
from service.pace import Pace
from service.pixels import Pixels
from service.sample import Sample
from service.tasks import task_of
from service.tasks.generate import Between, Drawn, Place
from service.work import Work, keep

T = TypeVar("T")

BATCH_SECONDS = 0.1
"""A batch takes no longer on one thread, or a request that comes in the middle of bulk work would wait for it."""


@dataclass(frozen=True)
class Bundle:
    """A generator with everything that is known about it."""

    manifest: Manifest
    measured: Measured
    golden: GoldenReport
    batcher: Batcher
    samples_png: bytes | None

    @property
    def name(self) -> str:
        return self.manifest.name

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        engine: Engine | None = None,
        max_bytes: int = MAX_BUNDLE_BYTES,
        limits: QueueLimits | None = None,
        observer: Observer | None = None,
    ) -> "Bundle":
        """Verify every file of a bundle, then open, check and warm its generator.

        Args:
            directory: its name is the bundle's.
            engine: opens and runs the graph; None is this process.
            max_bytes: of all its files together.
            limits: of the queue in front of the generator.
            observer: of that queue.

        Raises:
            InvalidBundle: if a file, the manifest or the graph is not as it should be.
            ModelFailure: if the engine is to run on hardware that is not there.
        """
        manifest = Manifest.read(directory)
        if manifest.name != directory.name:
            raise InvalidBundle(f"the manifest's name is {manifest.name!r}; it must be the directory's")
        task = task_of(manifest)
        files = read_verified(directory, manifest.sha256, wanted=(SAMPLES_FILE,), max_bytes=max_bytes)
        engine = Here(max_bytes=max_bytes) if engine is None else engine
        opened = engine.open(directory, manifest)
        measured = opened.measured
        batcher = Batcher(
            partial(engine.compute, manifest.name),
            turns=engine.turns(measured.provider),
            pace=Pace(measured.seconds_per_pixel, max_pixels=task.max_pixels, batch_seconds=BATCH_SECONDS),
            max_rows=MAX_BATCH,
            unit=measured.batch or 1,
            limits=limits,
            observer=observer,
        )
        return cls(manifest, measured, opened.golden, batcher, files.get(SAMPLES_FILE))

    def sample(self, *, seed: int | None = None, class_: str | int | None = None, truncation: float = 1.0) -> Sample:
        """What a request asks of this bundle, checked against what the bundle can do.

        Args:
            seed: None draws one.
            class_: a class's name or index; needed if and only if the bundle knows classes.
            truncation: in (0, 1], 1 is off; less than 1 only if the graph can.

        Raises:
            InvalidValue: if one of them does not suit the bundle.
        """
        if truncation != 1 and (self.manifest.latent is None or self.manifest.latent.truncation is None):
            raise InvalidValue(
                f"model {self.name!r} knows no truncation; leave it out or send 1", pointer="/truncation", choices=[1]
            )
        label = self.label(class_)
        return Sample(
            model=self.name,
            version=self.manifest.version,
            digest=self.manifest.digest,
            seed=fresh_seed() if seed is None else self.check_seed(seed),
            label=label,
            class_name=None if label is None or self.manifest.classes is None else self.manifest.classes[label],
            truncation=truncation,
        )

    def work(self, samples: Sequence[Sample], finish: Callable[[Pixels], T]) -> Work[T]:
        """What the batcher does for samples: `finish` gets their pixels, uint8 [N, height, width, channels]."""
        return self._work(len(samples), Drawn(samples), finish)

    def work_between(self, places: Sequence[Place], finish: Callable[[Pixels], T]) -> Work[T]:
        """The same for pictures between samples."""
        return self._work(len(places), Between(places), finish)

    def picture(self, sample: Sample) -> Pixels:
        """Make one sample and wait for it: uint8 [height, width, channels].

        Raises:
            ModelFailure: if the generator fails.
        """
        picture: Pixels = self.batcher.submit(self.work([sample], keep)).result().value[0]
        return picture

    def check_seed(self, seed: int, pointer: str = "/seed") -> int:
        """The seed, if the bundle's scheme knows it.

        Raises:
            InvalidLatent: if not.
        """
        limit = self.seeds
        if not 0 <= seed < limit:
            raise InvalidLatent(
                f"seed {seed} is out of range; model {self.name!r} takes integers from 0 to {limit - 1}",
                pointer=pointer,
            )
        return seed

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        output = self.manifest.output
        assert output.height is not None
        assert output.width is not None
        return output.height, output.width, output.channels

    @property
    def rows_per_batch(self) -> int:
        """How many pictures a batch takes, where all are of one shape."""
        height, width, _ = self.shape
        return self.batcher.rows_of(height * width)

    @cached_property
    def seeds(self) -> int:
        """How many seeds there are; 0 if the graph takes none."""
        latent = self.manifest.latent
        return 0 if latent is None else SCHEMES[latent.scheme][1]

    def _work(self, rows: int, feed: Callable[[Generator], Feed], finish: Callable[[Pixels], T]) -> Work[T]:
        height, width, _ = self.shape
        return Work(rows, rows * height * width, feed, finish)

    def label(self, class_: str | int | None) -> int | None:
        """The index of a class; None if the bundle knows none and none was given.

        Raises:
            InvalidValue: if the bundle and the class do not fit.
        """
        classes = self.manifest.classes
        if classes is None:
            if class_ is not None:
                raise InvalidValue(f"model {self.name!r} knows no classes; leave class out", pointer="/class")
            return None
        if isinstance(class_, str) and class_ in classes:
            return classes.index(class_)
        if isinstance(class_, int) and 0 <= class_ < len(classes):
            return class_
        came = "class is missing" if class_ is None else f"unknown class {class_!r}"
        if isinstance(class_, str) and class_ in map(str, range(len(classes))):
            came += ", a text; send an index as a number"
        raise InvalidValue(
            f"{came}; model {self.name!r} takes {_listed(classes)}, or an index from 0 to {len(classes) - 1}",
            pointer="/class",
            choices=classes,
        )


def _listed(names: tuple[str, ...], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
