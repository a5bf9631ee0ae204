"""One bundle that has been verified, loaded and warmed: seeds in, pictures out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from service.errors import InvalidBundle, InvalidValue
from service.files import MAX_BUNDLE_BYTES, read_verified
from service.generator import Generator, Pixels
from service.golden import GoldenReport, check_golden
from service.graph_check import check_graph
from service.latents import draw, fresh_seed
from service.manifest import GENERATOR_FILE, GOLDEN_FILE, SAMPLES_FILE, Manifest
from service.sample import Sample
from service.settings import Provider

CheckGraph = Callable[[bytes, Manifest], None]
"""Raises InvalidBundle if a graph must not be opened in this process."""


def trust(model: bytes, manifest: Manifest) -> None:
    """Only read the graph, without a trial: for bundles whose makers are known."""
    check_graph(model)


@dataclass(frozen=True)
class Bundle:
    """A generator with everything that is known about it."""

    manifest: Manifest
    generator: Generator
    samples_png: bytes | None
    golden: GoldenReport

    @property
    def name(self) -> str:
        return self.manifest.name

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        provider: Provider = "auto",
        max_bytes: int = MAX_BUNDLE_BYTES,
        check: CheckGraph = trust,
    ) -> "Bundle":
        """Verify every file of a bundle, then open, check and warm its generator.

        Args:
            max_bytes: of all its files together.
            check: of the graph, before it is opened; a `Trial` for bundles from strangers.

        Raises:
            InvalidBundle: if a file, the manifest or the graph is not as it should be.
            ModelFailure: if `provider` asks for hardware that is not there.
        """
        manifest = Manifest.read(directory)
        if manifest.name != directory.name:
            raise InvalidBundle(f"the manifest's name is {manifest.name!r}; it must be the directory's")
        if manifest.task != "generate":
            raise InvalidBundle(f"task {manifest.task!r} is not served; served: generate")
        files = read_verified(
            directory, manifest.sha256, wanted=(GENERATOR_FILE, SAMPLES_FILE, GOLDEN_FILE), max_bytes=max_bytes
        )
        check(files[GENERATOR_FILE], manifest)
        generator = Generator(files[GENERATOR_FILE], manifest, provider=provider)
        golden = check_golden(
            manifest, files.get(GOLDEN_FILE), partial(_pictures, manifest, generator), generator.provider
        )
        return cls(manifest, generator, files.get(SAMPLES_FILE), golden)

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
        label = self._label(class_)
        return Sample(
            model=self.name,
            version=self.manifest.version,
            digest=self.manifest.digest,
            seed=fresh_seed() if seed is None else seed,
            label=label,
            class_name=None if label is None or self.manifest.classes is None else self.manifest.classes[label],
            truncation=truncation,
        )

    def picture(self, sample: Sample) -> Pixels:
        """Make one sample, uint8 [height, width, channels].

        Raises:
            InvalidLatent: if the bundle's scheme does not know the seed.
            ModelFailure: if the generator fails.
        """
        picture: Pixels = _pictures(
            self.manifest, self.generator, [sample.seed], [sample.label], truncation=sample.truncation
        )[0]
        return picture

    def _label(self, class_: str | int | None) -> int | None:
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
        raise InvalidValue(
            f"{came}; model {self.name!r} takes {_listed(classes)}, or an index from 0 to {len(classes) - 1}",
            pointer="/class",
            choices=classes,
        )


def _pictures(
    manifest: Manifest,
    generator: Generator,
    seeds: Sequence[int],
    labels: Sequence[int | None],
    *,
    truncation: float = 1.0,
) -> Pixels:
    assert manifest.latent is not None
    z = draw(seeds, manifest.latent.z_dim, manifest.latent.scheme)
    y = None if manifest.classes is None else np.array(labels, np.int64)
    return generator.pixels(z, y, np.full(len(z), truncation, np.float32))


def _listed(names: tuple[str, ...], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
