"""One bundle that has been verified, loaded and warmed: seeds in, pictures out."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from service.errors import InvalidBundle, InvalidValue
from service.generator import Generator, Pixels
from service.latents import draw, fresh_seed
from service.manifest import GENERATOR_FILE, SAMPLES_FILE, Manifest
from service.sample import Sample
from service.settings import Provider

GoldenResult = Literal["matches", "differs", "untested"]


@dataclass(frozen=True)
class Bundle:
    """A generator with everything that is known about it."""

    manifest: Manifest
    generator: Generator
    samples_png: bytes | None
    golden: GoldenResult

    @property
    def name(self) -> str:
        return self.manifest.name

    @classmethod
    def load(cls, directory: Path, *, provider: Provider = "auto") -> "Bundle":
        """Verify every file of a bundle, then open, check and warm its generator.

        Raises:
            InvalidBundle: if a file, the manifest or the graph is not as it should be.
            ModelFailure: if `provider` asks for hardware that is not there.
        """
        manifest = Manifest.read(directory)
        if manifest.name != directory.name:
            raise InvalidBundle(f"the manifest's name is {manifest.name!r}; it must be the directory's")
        if manifest.task != "generate":
            raise InvalidBundle(f"task {manifest.task!r} is not served; served: generate")
        files = {name: _read_verified(directory, name, sha256) for name, sha256 in manifest.sha256.items()}
        generator = Generator(files[GENERATOR_FILE], manifest, provider=provider)
        return cls(manifest, generator, files.get(SAMPLES_FILE), _check_golden(manifest, generator))

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
        return _picture(self.manifest, self.generator, sample.seed, sample.label, sample.truncation)

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


def _picture(manifest: Manifest, generator: Generator, seed: int, label: int | None, psi: float) -> Pixels:
    assert manifest.latent is not None
    z = draw([seed], manifest.latent.z_dim, manifest.latent.scheme)
    y = None if label is None else np.array([label], np.int64)
    picture: Pixels = generator.pixels(z, y, np.array([psi], np.float32))[0]
    return picture


def _read_verified(directory: Path, name: str, sha256: str) -> bytes:
    path = directory / name
    try:
        if not path.resolve().is_relative_to(directory.resolve()):
            raise InvalidBundle(f"{name} is a link out of the bundle")
        if not path.is_file():
            raise InvalidBundle(f"{name} is missing, or not a regular file")
        content = path.read_bytes()
    except OSError as error:
        raise InvalidBundle(f"cannot read {name}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InvalidBundle(f"sha256 of {name} is {found[:12]}..., the manifest says {sha256[:12]}...")
    return content


def _check_golden(manifest: Manifest, generator: Generator) -> GoldenResult:
    if not manifest.golden:
        return "untested"
    num_classes = len(manifest.classes or ())
    for golden in manifest.golden:
        if (golden.label is not None) != bool(num_classes) or (golden.label or 0) >= max(num_classes, 1):
            raise InvalidBundle(f"golden sample {golden.seed} has label {golden.label}, of {num_classes} classes")
        pixels = _picture(manifest, generator, golden.seed, golden.label, 1.0)
        if hashlib.sha256(pixels.tobytes()).hexdigest() != golden.pixels_sha256:
            return "differs"
    return "matches"


def _listed(names: tuple[str, ...], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
