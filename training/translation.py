"""The graph of any generator picture[, z] -> picture, and how it is shown and checked on held-out pictures."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service import latents
from service.manifest import Golden, Latent, Picture, SourcePicture
from service.pixels import pixels_sha256
from training.architectures import Translator
from training.datasets.base import BACKGROUND, as_floats
from training.graph import Graph, RunGraph
from training.layers import as_bytes, is_finite
from training.onnx_file import MAX_SIDE

Show = Callable[[Sequence[Tensor], int], NDArray[np.uint8]]

SHEET_ROWS = 8
SHEET_STRIPS = 4
"""Strips of input, output and truth in each row."""
GOLDEN_PICTURES = 4
OTHER_SIZES = ((1, 1), (3, 2), (5, 9))
"""Height and width, in multiples of what the graph takes, at which export compares it with torch too."""


class TranslatedPicture(nn.Module):
    """A generator as its users meet it: bytes before it and after it."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`OUTPUTS` of image uint8 [N, H, W, C] and z [N, z_dim]."""
        items = self.generator(image.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1, z)
        return as_bytes(items), is_finite(items)


def translation_graph(generator: Translator, sources: Tensor, targets: Tensor | None, show: Show) -> Graph:
    """The graph of a translator.

    Args:
        generator: on the CPU, in evaluation mode.
        sources: held-out pictures, uint8 [M, H, W, C].
        targets: what belongs to each, uint8 [M, H, W, C']; None if nobody knows.
        show: lays out columns of items in [-1, 1] side by side, in so many rows.
    """
    latent = Latent(z_dim=generator.z_dim) if generator.z_dim else None
    height, width, channels = sources.shape[1:]
    with torch.no_grad():
        target_channels = generator(_floats(sources[:1]), _z([0], latent)).shape[1]
    any_size = generator.sizes == "any"
    step = generator.multiple_of

    def rows(pictures: Tensor) -> dict[str, Tensor]:
        z = _z(range(len(pictures)), latent)
        return {"image": pictures} if z is None else {"image": pictures, "z": z}

    def inputs(n: int) -> dict[str, Tensor]:
        return rows(sources[torch.arange(n) % len(sources)])

    def outputs(run: RunGraph, pictures: Tensor, seeds: Sequence[int]) -> NDArray[np.uint8]:
        z = _z(seeds, latent)
        return run({"image": pictures.numpy()} | ({} if z is None else {"z": z.numpy()}))

    def sheet(run: RunGraph) -> NDArray[np.uint8]:
        """Strips of input, output and, where it is known, truth; seed 0 everywhere."""
        shown = torch.linspace(0, len(sources) - 1, min(SHEET_ROWS * SHEET_STRIPS, len(sources))).round().long()
        made = torch.from_numpy(outputs(run, sources[shown], [0] * len(shown)))
        columns = [sources[shown], made, *([] if targets is None else [targets[shown]])]
        return show([_floats(column) for column in columns], SHEET_ROWS)

    def golden(run: RunGraph) -> tuple[tuple[Golden, ...], dict[str, NDArray[np.uint8]]]:
        """A few held-out pictures, each with a seed of its own."""
        images = sources[:GOLDEN_PICTURES]
        seeds = list(range(len(images))) if latent else [0] * len(images)
        pixels = outputs(run, images, seeds)
        goldens = tuple(
            Golden(seed=seed, image_sha256=pixels_sha256(image), pixels_sha256=pixels_sha256(picture))
            for seed, image, picture in zip(seeds, images.numpy(), pixels, strict=True)
        )
        return goldens, {"pixels": pixels, "images": images.numpy()}

    return Graph(
        task="translate",
        module=TranslatedPicture(generator),
        inputs=inputs,
        other_inputs=tuple(rows(_noise(2, high * step, wide * step, channels)) for high, wide in OTHER_SIZES)
        if any_size
        else (),
        free_axes={"image": {1: ("height", step), 2: ("width", step)}} if any_size else {},
        input=SourcePicture(
            height=None if any_size else height,
            width=None if any_size else width,
            channels=channels,
            multiple_of=step,
            halo=generator.halo if any_size else None,
            background=BACKGROUND,
        ),
        output=Picture(
            height=None if any_size else height,
            width=None if any_size else width,
            channels=target_channels,
            multiple_of=step,
        ),
        sheet=sheet,
        golden=golden,
        latent=latent,
    )


def _floats(pictures: Tensor) -> Tensor:
    """uint8 [N, H, W, C] as float32 [N, C, H, W] in [-1, 1]."""
    return as_floats(pictures.permute(0, 3, 1, 2))


def _z(seeds: Sequence[int], latent: Latent | None) -> Tensor | None:
    return None if latent is None else torch.from_numpy(latents.draw(seeds, latent.z_dim, latent.scheme))


def _noise(n: int, height: int, width: int, channels: int) -> Tensor:
    """Bytes that never change, uint8 [n, height, width, channels]."""
    rng = np.random.default_rng(height * MAX_SIDE + width)
    return torch.from_numpy(rng.integers(0, 256, (n, height, width, channels), np.uint8))
