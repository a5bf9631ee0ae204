"""The judge: a small classifier of real pictures whose features and opinions make generated ones measurable.

It is trained on the real training split, seeded, and kept as ONNX; the hash of that file stands in every number that it
gives.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from service.runtime import CPU
from training.datasets import Pictures
from training.datasets.base import cache_directory
from training.onnx_file import write_onnx

logger = logging.getLogger(__name__)

JUDGE_FILE = "judge.onnx"
FEATURES = 64
BATCH = 128
EPOCHS = 6
PEAK_LEARNING_RATE = 2e-3


class Classifier(nn.Module):
    """Five convolutions and two linear layers; the judge and the classification accuracy score share it."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

        self.body = nn.Sequential(
            block(channels, 32, 5, stride=2),
            block(32, 64, 3),
            block(64, 64, 3),
            nn.MaxPool2d(2),
            block(64, 128, 3),
            block(128, 128, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, FEATURES),
        )
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(logits [N, classes], features [N, 64]) of uint8 pixels [N, H, W, C]."""
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        features = self.body(images)
        return self.head(F.relu(features)), features

    @torch.no_grad()
    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, classes] of pixels [N, H, W, C]."""
        return np.concatenate([self(batch)[0].numpy() for batch in torch.from_numpy(pixels).split(500)])


def train_classifier(pixels: NDArray[np.uint8], labels: NDArray[np.int64], num_classes: int, title: str) -> Classifier:
    """A classifier of pixels [N, H, W, C] with labels [N]; the same input gives the same network on one machine."""
    data, targets = torch.from_numpy(pixels), torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network: Classifier = Classifier(pixels.shape[-1], num_classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2, fused=True)
        batch_size = min(BATCH, len(data))
        steps = EPOCHS * (len(data) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
        with tqdm(total=steps, desc=title, unit="step", leave=False, disable=None) as bar:
            for _ in range(EPOCHS):
                order = torch.randperm(len(data))
                for batch in order.split(batch_size)[: len(data) // batch_size]:
                    with torch.autocast("cpu", torch.bfloat16):
                        logits, _ = network(data[batch])
                    loss = F.cross_entropy(logits.float(), targets[batch])
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    bar.update()
    return network.eval()


@dataclass(frozen=True)
class Opinion:
    """What the judge says of a set of pictures."""

    logits: NDArray[np.float32]
    """[N, classes]."""
    features: NDArray[np.float32]
    """[N, 64]."""

    def accuracy(self, labels: NDArray[np.int64]) -> float:
        """Share of the pictures that the judge gives the label they should have."""
        return float((self.logits.argmax(1) == labels).mean())


class Judge:
    """A trained classifier, read from its ONNX file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes()
        self.hash = hashlib.sha256(content).hexdigest()[:12]
        self._session = onnxruntime.InferenceSession(content, providers=[CPU])

    def opinion(self, pixels: NDArray[np.uint8]) -> Opinion:
        """Logits and features of pixels [N, H, W, C]."""
        parts = [
            self._session.run(["logits", "features"], {"pixels": pixels[start : start + 500]})
            for start in range(0, len(pixels), 500)
        ]
        logits, features = zip(*parts, strict=True)
        return Opinion(np.concatenate(logits), np.concatenate(features))


def write_judge(network: Classifier, pixels: NDArray[np.uint8], path: Path) -> None:
    """Keep a trained classifier as ONNX; `pixels` [N, H, W, C] are examples of its input."""
    write_onnx(network, {"pixels": torch.from_numpy(pixels[:2])}, ["logits", "features"], path)


def judge_of(train: Pictures) -> Judge:
    """The judge of a training split: trained on it the first time, from the cache ever after."""
    what = json.dumps([train.fingerprint, FEATURES, BATCH, EPOCHS, PEAK_LEARNING_RATE])
    key = hashlib.sha256(what.encode()).hexdigest()[:12]
    path = cache_directory() / "judges" / f"{key}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        logger.info("training the judge of these %d pictures (once; it is kept in %s)", len(train), path)
        pixels = as_pixels(train)
        network = train_classifier(pixels, train.labels.numpy(), len(train.classes), "training the judge")
        write_judge(network, pixels, path)
    return Judge(path)


def as_pixels(pictures: Pictures) -> NDArray[np.uint8]:
    """[N, H, W, C], as a generator gives them."""
    return np.ascontiguousarray(pictures.pixels.permute(0, 2, 3, 1).numpy())
