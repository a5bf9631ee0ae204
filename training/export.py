"""A run becomes a bundle: graph, manifest, samples, checked before anybody can load them."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from service import latents
from service.manifest import (
    GENERATOR_FILE,
    MANIFEST_FILE,
    SAMPLES_FILE,
    Golden,
    Latent,
    Manifest,
    Metric,
    ModelName,
    file_sha256,
)
from training import samples
from training.methods import AbstractMethod, Graph
from training.onnx_file import ExportError, write_onnx
from training.recipe import Recipe

PARITY_BATCHES = (1, 2, 7, 32)
MAX_LEVELS = 1
MAX_SHARE = 1e-3
SHEET_COLUMNS = 12
GOLDEN_SEEDS = (0, 42)


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime's pixels are from torch's at one batch size."""

    batch: int
    levels: int
    """Largest difference, of 255."""
    share: float
    """Of the values that differ at all."""

    @property
    def holds(self) -> bool:
        return self.levels <= MAX_LEVELS and self.share <= MAX_SHARE

    def __str__(self) -> str:
        verdict = "ok" if self.holds else "FAILS"
        return f"batch {self.batch:>3}: at most {self.levels} level(s) on {self.share:.4%} of the values  {verdict}"


class OnnxSampler:
    """An exported generator as the evaluation calls it: seeds and labels in, pixels out."""

    def __init__(self, path: Path, latent: Latent) -> None:
        self.latent = latent
        self._session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        self._names = {node.name for node in self._session.get_inputs()}

    def __call__(self, seeds: NDArray[np.uint64], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [N, H, W, C] at psi = 1."""
        z = latents.draw(seeds.tolist(), self.latent.z_dim, self.latent.scheme)
        inputs = {"z": z, "y": labels, "psi": np.ones(len(z), np.float32)}
        (pixels,) = self._session.run(["pixels"], {name: inputs[name] for name in self._names})
        return np.asarray(pixels)


def check_parity(graph: Graph, path: Path) -> list[Parity]:
    """Compare torch with ONNX Runtime at several batch sizes."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    results = []
    for batch in PARITY_BATCHES:
        inputs = graph.inputs(batch)
        with torch.no_grad():
            expected = graph.module(**inputs).numpy().astype(np.int16)
        (actual,) = session.run(["pixels"], {name: tensor.numpy() for name, tensor in inputs.items()})
        difference = np.abs(np.asarray(actual).astype(np.int16) - expected)
        results.append(Parity(batch, int(difference.max()), float((difference > 0).mean())))
    return results


def export(
    recipe: Recipe,
    method: AbstractMethod,
    target: Path,
    *,
    bundle_version: str,
    images: int,
    metrics: dict[str, Metric],
    extra_files: Sequence[Path] = (),
) -> list[Parity]:
    """Write the bundle `target`; its last part is the bundle's name. An older one is moved aside and deleted once
    the new one stands.

    Args:
        images: how many the generator was trained on.
        metrics: what was measured of these very weights.
        extra_files: copied in under their own names.

    Returns:
        The parity of every batch size, all of which hold.

    Raises:
        ExportError: if torch and ONNX Runtime disagree; nothing is written then.
    """
    graph = method.graph()
    with _written_aside(target) as folder:
        write_onnx(graph.module, graph.inputs(2), ["pixels"], folder / GENERATOR_FILE)
        parity = check_parity(graph, folder / GENERATOR_FILE)
        if not all(result.holds for result in parity):
            raise ExportError(
                f"torch and ONNX Runtime disagree beyond {MAX_LEVELS} level on {MAX_SHARE:.1%} of the values:\n  "
                + "\n  ".join(map(str, parity))
            )
        for file in extra_files:
            shutil.copyfile(file, folder / file.name)
        manifest = Manifest(
            name=target.name,
            version=bundle_version,
            task=method.task,
            sha256={GENERATOR_FILE: file_sha256(folder / GENERATOR_FILE)},
            latent=graph.latent,
            classes=graph.classes,
            input=graph.input,
            output=graph.output,
            recipe=recipe.resolved(),
            data=(recipe.data.card(size=images),),
            licence=recipe.licence,
            metrics=metrics,
            created_with=_versions(),
        )
        assert graph.latent is not None
        generator = OnnxSampler(folder / GENERATOR_FILE, graph.latent)
        samples.save(_sheet(generator, len(graph.classes or ("",))), folder / SAMPLES_FILE)
        write_manifest(
            manifest.model_copy(
                update={
                    "golden": _golden(generator, manifest),
                    "sha256": {
                        path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST_FILE
                    },
                }
            ),
            folder,
        )
    return parity


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json` aside, then move it to its place."""
    aside = folder / f".{MANIFEST_FILE}.{os.getpid()}"
    aside.write_text(manifest.to_json())
    aside.replace(folder / MANIFEST_FILE)


@contextmanager
def _written_aside(target: Path) -> Iterator[Path]:
    """A scratch directory that takes the place of `target` if the block succeeds and vanishes if it fails.

    Raises:
        ExportError: if something that is no bundle stands there, or the name is none for a bundle.
    """
    try:
        TypeAdapter(ModelName).validate_python(target.name)
    except ValidationError as error:
        raise ExportError(
            f"{target.name!r} is no name for a bundle; take lower-case letters, digits, dots, dashes, underscores"
        ) from error
    if target.exists() and not (target / MANIFEST_FILE).is_file():
        raise ExportError(f"{target} exists and is no bundle; name a new directory, for example models/NAME")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        folder, old = Path(scratch) / "new", Path(scratch) / "old"
        folder.mkdir()
        yield folder
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise


def _sheet(generator: OnnxSampler, rows: int) -> Image.Image:
    """A row per class; seeds count up from 0 through all the rows, so that no two samples share a latent."""
    seeds = np.arange(rows * SHEET_COLUMNS, dtype=np.uint64)
    pixels = generator(seeds, np.repeat(np.arange(rows), SHEET_COLUMNS))
    return samples.sheet(pixels.reshape(rows, SHEET_COLUMNS, *pixels.shape[1:]))


def _golden(generator: OnnxSampler, manifest: Manifest) -> tuple[Golden, ...]:
    """Samples that every faithful runtime makes again, two of each class."""
    pairs = [(seed, label) for label in range(len(manifest.classes or ("",))) for seed in GOLDEN_SEEDS]
    seeds, labels = (np.array(column) for column in zip(*pairs, strict=True))
    pixels = generator(seeds.astype(np.uint64), labels)
    return tuple(
        Golden(
            seed=seed,
            label=label if manifest.classes else None,
            pixels_sha256=samples.pixels_sha256(row),
        )
        for (seed, label), row in zip(pairs, pixels, strict=True)
    )


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("ganery", "torch", "onnx", "onnxruntime", "numpy")}
    return {**packages, "python": platform.python_version(), "machine": platform.machine()}
