"""What a trained network becomes: the graph in a bundle, and how that graph is asked for pictures to show and to check.

A method describes its graph; `export.py` writes, compares and hashes any of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service import latents
from service.errors import NonFiniteOutput
from service.manifest import Golden, Latent, Picture, SourcePicture, Task
from service.pixels import pixels_sha256
from service.runtime import CPU, cpu_session_options
from training.layers import as_bytes, is_finite
from training.samples import MAX_ROWS

RunGraph = Callable[[dict[str, NDArray[Any]]], NDArray[np.uint8]]
"""Inputs by name -> pixels [N, H, W, C]; inputs that the graph does not have are passed over."""

OUTPUTS = ("pixels", "finite")
SHEET_COLUMNS = 12
GOLDEN_SEEDS = (0, 42)
GOLDEN_CLASSES = 100
"""Most classes of which there are golden samples: a service makes them all again when it starts."""


@dataclass(frozen=True)
class Graph:
    """What becomes `generator.onnx`, and what the manifest says of it."""

    task: Task
    module: nn.Module
    """Takes `inputs` by name and returns `OUTPUTS`: uint8 [N, H, W, C], and bool [N], false if there is no picture."""
    inputs: Callable[[int], dict[str, Tensor]]
    """N rows of plausible input by name, always the same ones for the same N."""
    output: Picture
    sheet: Callable[[RunGraph], NDArray[np.uint8]]
    """Pictures [rows, columns, H, W, C] for `samples.png`."""
    golden: Callable[[RunGraph], tuple[tuple[Golden, ...], dict[str, NDArray[np.uint8]]]]
    """Samples that every faithful runtime makes again, and what `golden.npz` holds: `pixels` and, if any, `images`."""
    other_inputs: tuple[dict[str, Tensor], ...] = ()
    """Further pairs of rows of input, each of a size of its own, the last the largest, on which the exported graph must
    agree with `module`.
    """
    free_axes: Mapping[str, Mapping[int, tuple[str, int]]] = field(default_factory=dict)
    """Input -> axis -> name of its size and what that must be a multiple of; the first axis is always free."""
    input: SourcePicture | None = None
    latent: Latent | None = None
    classes: tuple[str, ...] | None = None

    @property
    def example(self) -> dict[str, Tensor]:
        """Two rows to export it with. Of another size if it takes any: torch would make a constant of a size that is 1
        somewhere inside, as that of the smallest pictures is at the bottom of a U-Net.
        """
        return self.other_inputs[-1] if self.other_inputs else self.inputs(2)


def open_graph(path: Path) -> RunGraph:
    """A graph in ONNX Runtime, on the CPU, with the service's options: other ones change a few bits.

    The function that runs it raises NonFiniteOutput where there is no picture.
    """
    session = onnxruntime.InferenceSession(path.read_bytes(), cpu_session_options(), providers=[CPU])
    names = {node.name for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]  # older graphs give pixels alone

    def run(inputs: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
        given = session.run(outputs, {name: value for name, value in inputs.items() if name in names})
        results = dict(zip(outputs, given, strict=True))
        if not np.all(results.get("finite", True)):
            raise NonFiniteOutput("the generator computed NaN or infinity instead of a picture")
        return np.asarray(results["pixels"])

    return run


class Sampler:
    """A graph that makes pictures of seeds and labels, without truncation."""

    def __init__(self, run: RunGraph, latent: Latent) -> None:
        self._run = run
        self._latent = latent

    def __call__(self, seeds: NDArray[np.uint64], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [N, H, W, C]; row i is that of `seeds[i]` and `labels[i]` alone."""
        z = latents.draw(seeds.tolist(), self._latent.z_dim, self._latent.scheme)
        return self._run({"z": z, "y": labels, "psi": np.ones(len(z), np.float32)})


class SampledGenerator(nn.Module):
    """A generator as its users meet it: truncation before it, bytes after it."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, psi: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`OUTPUTS` of z [N, z_dim], psi [N] in (0, 1], which pulls z towards its mean, and y int64 [N].

        Reference: Brock et al., "Large Scale GAN Training", 2018, arXiv:1809.11096, section 3.1; scaled, not resampled,
        so that a picture changes smoothly with psi.
        """
        images = self.generator(z * psi.unsqueeze(1), y)
        return as_bytes(images), is_finite(images)


def sampling_graph(generator: nn.Module, z_dim: int, classes: tuple[str, ...], output: Picture) -> Graph:
    """The graph of any generator z[, y] -> images in [-1, 1].

    Args:
        generator: on the CPU, in evaluation mode.
        classes: names in label order; empty if it knows none, and then it is called with y = None.
        output: what the pictures are.
    """
    latent = Latent(z_dim=z_dim, truncation="z")
    num_classes = max(1, len(classes))

    def inputs(n: int) -> dict[str, Tensor]:
        y = {"y": torch.arange(n) % num_classes} if classes else {}
        return {"z": torch.from_numpy(latents.draw(range(n), z_dim)), "psi": torch.linspace(1, 0.5, n), **y}

    def sheet(run: RunGraph) -> NDArray[np.uint8]:
        """A row per class; seeds count up through all the rows, so that no two samples share a latent."""
        rows = min(num_classes, MAX_ROWS)
        seeds = np.arange(rows * SHEET_COLUMNS, dtype=np.uint64)
        pixels = Sampler(run, latent)(seeds, np.repeat(np.arange(rows), SHEET_COLUMNS))
        return pixels.reshape(rows, SHEET_COLUMNS, *pixels.shape[1:])

    def golden(run: RunGraph) -> tuple[tuple[Golden, ...], dict[str, NDArray[np.uint8]]]:
        """The same few seeds of every class."""
        shown = min(num_classes, GOLDEN_CLASSES)
        labels = np.repeat(np.arange(shown), len(GOLDEN_SEEDS))
        seeds = np.tile(np.array(GOLDEN_SEEDS, np.uint64), shown)
        pixels = Sampler(run, latent)(seeds, labels)
        goldens = tuple(
            Golden(seed=int(seed), label=int(label) if classes else None, pixels_sha256=pixels_sha256(picture))
            for seed, label, picture in zip(seeds, labels, pixels, strict=True)
        )
        return goldens, {"pixels": pixels}

    return Graph(
        task="generate",
        module=SampledGenerator(generator),
        inputs=inputs,
        output=output,
        sheet=sheet,
        golden=golden,
        latent=latent,
        classes=classes or None,
    )
