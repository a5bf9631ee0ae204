"""A run becomes a bundle: graph, manifest, samples, checked before anybody can load them."""

import platform
import reprlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from service.errors import InvalidBundle
from service.golden import save_pixels, this_hardware
from service.manifest import (
    GENERATOR_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    SAMPLES_FILE,
    Manifest,
    Metric,
    ModelName,
    Training,
    file_sha256,
)
from service.runtime import CPU
from training import samples
from training.files import to_disk
from training.graph import OUTPUTS, Graph, RunGraph, open_graph
from training.methods import AbstractMethod
from training.onnx_file import ExportError, write_onnx
from training.recipe import Recipe

PARITY_BATCHES = (1, 2, 7, 32)
PARITY_ROWS = 64
MAX_LEVELS = 1
MAX_SHARE = 1e-3
ALWAYS_ALLOWED = 1
"""Values on the verge of two levels: the smallest pictures have so few values that a single one is a share."""


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime's pixels are from torch's at one batch size and one size of pictures."""

    batch: int
    levels: int
    """Largest difference, of 255."""
    differing: int
    """Values that differ at all."""
    values: int
    """That were compared."""
    size: tuple[int, ...] = ()
    """Height and width of the pictures."""

    @property
    def holds(self) -> bool:
        return self.levels <= MAX_LEVELS and self.differing <= max(ALWAYS_ALLOWED, MAX_SHARE * self.values)

    def __str__(self) -> str:
        verdict = "ok" if self.holds else "FAILS"
        size = " x ".join(map(str, self.size))
        differences = f"at most {self.levels} level(s) on {self.differing / self.values:.4%} of the values"
        return f"{size}, batch {self.batch:>3}: {differences}  {verdict}"


def check_parity(graph: Graph, path: Path) -> list[Parity]:
    """Compare torch with ONNX Runtime on the same rows, fed in batches of several lengths, and on pictures of all sizes
    that the graph shows it.
    """
    run = open_graph(path)
    results = [_parity(graph, run, graph.inputs(PARITY_ROWS), batch) for batch in PARITY_BATCHES]
    for inputs in graph.other_inputs:
        rows = len(next(iter(inputs.values())))
        results += [_parity(graph, run, inputs, batch) for batch in PARITY_BATCHES if batch <= rows]
    return results


def _parity(graph: Graph, run: RunGraph, inputs: dict[str, Tensor], batch: int) -> Parity:
    with torch.no_grad():
        expected = graph.module(**inputs)[0].numpy().astype(np.int16)
    parts = [
        run({name: tensor[start : start + batch].numpy() for name, tensor in inputs.items()})
        for start in range(0, len(expected), batch)
    ]
    difference = np.abs(np.concatenate(parts).astype(np.int16) - expected)
    return Parity(
        batch, int(difference.max()), int(np.count_nonzero(difference)), difference.size, tuple(expected.shape[1:-1])
    )


def export(
    recipe: Recipe,
    method: AbstractMethod,
    target: Path,
    *,
    bundle_version: str,
    images: int,
    training: Training,
    metrics: dict[str, Metric],
    extra_files: Sequence[Path] = (),
    direction: str | None = None,
) -> list[Parity]:
    """Write the bundle `target`; its last part is the bundle's name. An older one is moved aside and deleted once
    the new one stands.

    Args:
        images: how many the generator was trained on.
        training: how long it was, and on what.
        metrics: what was measured of these very weights.
        extra_files: copied in under their own names.
        direction: which of the method's `directions`; None if it has none.

    Returns:
        The parity of every batch size and size of pictures, all of which hold.

    Raises:
        ExportError: if torch and ONNX Runtime disagree, no manifest can say what this is, or the bundle there is
            another recipe's; nothing is written then.
    """
    _expect_same_recipe(target, recipe, direction)
    graph = graph_of(method, direction)
    with _taking_the_place_of(target) as folder:
        write_onnx(graph.module, graph.example, OUTPUTS, folder / GENERATOR_FILE, free_axes=graph.free_axes)
        parity = check_parity(graph, folder / GENERATOR_FILE)
        if not all(result.holds for result in parity):
            raise ExportError(
                f"torch and ONNX Runtime disagree beyond {MAX_LEVELS} level on {MAX_SHARE:.1%} of the values, or on "
                f"{ALWAYS_ALLOWED} if that is more:\n  " + "\n  ".join(map(str, parity))
            )
        for file in extra_files:
            shutil.copyfile(file, folder / file.name)
        with _said_in_a_manifest():
            manifest = Manifest(
                name=target.name,
                version=bundle_version,
                task=graph.task,
                sha256={GENERATOR_FILE: file_sha256(folder / GENERATOR_FILE)},
                latent=graph.latent,
                classes=graph.classes,
                input=graph.input,
                output=graph.output,
                recipe=recipe.resolved(),
                direction=direction,
                data=(recipe.data.card(size=images),),
                licence=recipe.licence,
                training=training,
                limitations=recipe.limitations,
                metrics=metrics,
                created_with=_versions(),
            )
        run = open_graph(folder / GENERATOR_FILE)
        samples.save(samples.sheet(graph.sheet(run)), folder / SAMPLES_FILE)
        golden, golden_arrays = graph.golden(run)
        save_pixels(folder / GOLDEN_FILE, **golden_arrays)
        manifest = manifest.model_copy(
            update={
                "golden": golden,
                "golden_made_on": this_hardware(CPU),
                "sha256": {path.name: file_sha256(path) for path in sorted(folder.iterdir())},
            }
        )
        (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return parity


def graph_of(method: AbstractMethod, direction: str | None) -> Graph:
    """The method's graph.

    Raises:
        ExportError: if no manifest can describe it.
    """
    with _said_in_a_manifest():
        return method.graph(direction)


@contextmanager
def _said_in_a_manifest() -> Iterator[None]:
    """
    Raises:
        ExportError: for what breaks the manifest's schema within the block, naming the first thing that does.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join((error.title, *map(str, first["loc"])))
        raise ExportError(f"no manifest can hold {reprlib.repr(first['input'])} as {where}: {first['msg']}") from error


def _expect_same_recipe(target: Path, recipe: Recipe, direction: str | None) -> None:
    try:
        there = Manifest.read(target)
    except InvalidBundle:
        return  # there is none, or none that could be served
    name = there.recipe.get("name")
    if (name, there.direction) != (recipe.name, direction):
        held, brought = (
            f"{name} {way or ''}".strip() for name, way in ((name, there.direction), (recipe.name, direction))
        )
        raise ExportError(f"{target} holds {held}, and this is {brought}; name another directory, or delete that one")


def expect_place(target: Path) -> None:
    """Check that a bundle can be written at `target`, and make the directory that it will stand in.

    Raises:
        ExportError: if something that is no bundle stands there, the name is none for a bundle, or nothing can be
            written there.
    """
    try:
        TypeAdapter(ModelName).validate_python(target.name)
    except ValidationError as error:
        raise ExportError(
            f"{target.name!r} is no name for a bundle; take lower-case letters, digits, dots, dashes, underscores"
        ) from error
    if target.exists() and not (target / MANIFEST_FILE).is_file():
        raise ExportError(f"{target} exists and is no bundle; name a new directory, for example models/NAME")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent).cleanup()
    except OSError as error:
        raise ExportError(
            f"cannot write in {target.parent}: {error.strerror}; name another place, for example models/NAME"
        ) from error


@contextmanager
def _taking_the_place_of(target: Path) -> Iterator[Path]:
    """A scratch directory that takes the place of `target` if the block succeeds and vanishes if it fails.

    Raises:
        ExportError: as `expect_place`.
    """
    expect_place(target)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        folder, old = Path(scratch) / "new", Path(scratch) / "old"
        folder.mkdir()
        yield folder
        for path in (*folder.iterdir(), folder):
            to_disk(path)  # or a power cut leaves a bundle of empty files where a whole one stood
        try:
            if target.exists():
                target.rename(old)
            folder.rename(target)
        except BaseException:  # an interrupt too: the scratch directory is deleted with `old` in it
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        to_disk(target.parent)


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("ganery", "torch", "onnx", "onnxruntime", "numpy")}
    return {**packages, "python": platform.python_version(), "machine": platform.machine()}
