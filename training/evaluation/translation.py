"""Translating: what is measured of a generator picture[, z] -> picture on held-out pairs, beside doing nothing."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from service import latents
from service.manifest import Latent, Metric
from service.pixels import Pixels
from training import samples
from training.datasets import Data, Domains, Pairs
from training.datasets.base import DIRECTIONS, partners
from training.distances import LEAST_SIDE
from training.evaluation.base import AbstractEvaluation, EvaluationError, Report, Subject
from training.evaluation.perceptual import PerceptualJudge, perceptual_judge
from training.graph import RunGraph

STRIP_FILE = "strip.png"
STRIP_ROWS = 8
STRIPS_ACROSS = 3
IDENTITY = "identity"
BATCH = 32
SECOND_SEED = 1 << 32
"""Where the seeds begin of the outputs whose difference from the first ones is measured."""


@dataclass(frozen=True)
class HeldOut:
    """Pictures that no generator was trained on, with what each should become, and what training showed to aim at."""

    sources: Pixels
    """[N, H, W, C]."""
    targets: Pixels
    """[N, H, W, C']."""
    training_targets: Pixels
    """[M, H, W, C']."""


@dataclass(frozen=True)
class Likeness:
    """How near outputs come to the truth, mean over the held-out pairs."""

    judge_distance: float
    ssim: float
    l1: float


class Translation(AbstractEvaluation):
    """On the held-out pairs; of two domains, on those held-out pictures whose true partners are known."""

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        pass

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        return cls()

    def measure(self, subject: Subject, others: Sequence[Subject]) -> Report:
        expect_same_data([subject, *others])
        data = held_out(subject)
        judge = perceptual_judge()
        outputs = translate(subject.run, subject.latent, data.sources)
        ours = likeness(outputs, data.targets, judge)
        beside = {
            IDENTITY: likeness(data.sources, data.targets, judge),
            **{other.name: score(other, data, judge) for other in others},
        }
        n = len(outputs)
        metrics = {
            f"judge_distance[judge@{judge.hash}]": Metric(
                value=ours.judge_distance,
                better="lower",
                n=n,
                beside={name: other.judge_distance for name, other in beside.items()},
                judge=judge.hash,
            ),
            "ssim": Metric(
                value=ours.ssim, better="higher", n=n, beside={name: other.ssim for name, other in beside.items()}
            ),
            "l1": Metric(value=ours.l1, better="lower", n=n, beside={name: other.l1 for name, other in beside.items()}),
        }
        nearest, from_nearest = judge.nearest(np.concatenate([outputs, data.targets]), data.training_targets)
        copied, real = from_nearest[:n], from_nearest[n:]
        metrics[f"nearest_training_distance[judge@{judge.hash}]"] = Metric(
            value=float(copied.mean()), better="higher", n=n, floor={"truth": float(real.mean())}, judge=judge.hash
        )
        if subject.latent is not None:
            again = translate(subject.run, subject.latent, data.sources, SECOND_SEED)
            metrics[f"seed_distance[judge@{judge.hash}]"] = Metric(
                value=float(judge.distances(outputs, again).mean()), better="higher", n=n, judge=judge.hash
            )
        if subject.back is not None:
            returned = translate(subject.back, None, outputs)
            metrics["cycle_l1"] = Metric(value=mean_l1(returned, data.sources), better="lower", n=n)
        columns = [data.sources, outputs, data.targets, data.training_targets[nearest[:n]]]
        chosen = np.unique(np.linspace(0, n - 1, STRIP_ROWS * STRIPS_ACROSS).round().astype(int))
        strips = samples.strips([column[chosen] for column in columns], STRIP_ROWS)
        return Report(metrics, pictures={STRIP_FILE: samples.sheet(strips)})


def expect_same_data(subjects: Sequence[Subject]) -> None:
    """
    Raises:
        EvaluationError: unless all of them translate, in one direction, and hold out the same pictures.
    """
    first, *rest = subjects
    for other in rest:
        ours, theirs = ((s.task, s.recipe.resolved()["data"], s.direction) for s in (first, other))
        if ours != theirs:
            raise EvaluationError(
                f"{first.name} and {other.name} cannot be compared: their task, data set or direction differs, "
                "so what one holds out the other may have seen"
            )


def expect_way_back(subject: Subject, back: Subject) -> None:
    """
    Raises:
        EvaluationError: unless `back` translates what the subject makes into what it was made of.
    """
    ours, theirs = (s.recipe.resolved()["data"] for s in (subject, back))
    if ours != theirs or {subject.direction, back.direction} != set(DIRECTIONS):
        raise EvaluationError(
            f"{back.name} is no way back for {subject.name}: that is a generator of the same two sets, in the other "
            "direction"
        )


def held_out(subject: Subject) -> HeldOut:
    """The pairs on which a subject is measured.

    Raises:
        EvaluationError: if its data are no pictures, or no true partner is known.
    """
    data = subject.recipe.data
    sources, targets = _partners(data.load("test"), subject)
    _, shown, _, _ = _sides(data.load("train"), subject)
    if not len(sources):
        raise EvaluationError(f"{subject.name}: no held-out picture has a partner of the same key to compare with")
    if sources.ndim != 4 or sources.dtype != torch.uint8 or sources.shape[2:] != targets.shape[2:]:
        raise EvaluationError(
            f"{subject.name} translates items of shape {list(sources.shape[1:])} into {list(targets.shape[1:])}; "
            "pictures of one size are measured"
        )
    if min(sources.shape[2:]) < LEAST_SIDE:
        height, width = sources.shape[2:]
        raise EvaluationError(
            f"{subject.name} translates pictures of {height} x {width} pixels; SSIM needs {LEAST_SIDE} x {LEAST_SIDE}"
        )
    return HeldOut(*(np.ascontiguousarray(items.permute(0, 2, 3, 1).numpy()) for items in (sources, targets, shown)))


def _sides(data: Data, subject: Subject) -> tuple[Tensor, Tensor, tuple[str, ...], tuple[str, ...]]:
    """(sources, targets) and the keys of both, in the subject's direction."""
    if isinstance(data, Pairs):
        return data.sources, data.targets, data.keys, data.keys
    if isinstance(data, Domains):
        return data.sides(subject.direction or "ab")
    raise EvaluationError(f"{subject.name} learns from {data}, which hold no truth to compare a translation with")


def _partners(data: Data, subject: Subject) -> tuple[Tensor, Tensor]:
    """The items of both sides that have the same keys, in the same order."""
    sources, targets, source_keys, target_keys = _sides(data, subject)
    here, there = partners(source_keys, target_keys)
    return sources[here], targets[there]


def translate(run: RunGraph, latent: Latent | None, sources: Pixels, first_seed: int = 0) -> Pixels:
    """Pixels [N, H, W, C] of sources [N, H, W, C]; where a graph takes z, source i has the seed `first_seed` + i."""
    parts = []
    for start in range(0, len(sources), BATCH):
        images = sources[start : start + BATCH]
        inputs: dict[str, NDArray[Any]] = {"image": images}
        if latent is not None:
            seeds = range(first_seed + start, first_seed + start + len(images))
            inputs["z"] = latents.draw(seeds, latent.z_dim, latent.scheme)
        parts.append(run(inputs))
    return np.concatenate(parts)


def score(subject: Subject, data: HeldOut, judge: PerceptualJudge) -> Likeness:
    """How near a subject's outputs come to the truth."""
    return likeness(translate(subject.run, subject.latent, data.sources), data.targets, judge)


def likeness(outputs: Pixels, targets: Pixels, judge: PerceptualJudge) -> Likeness:
    """Of outputs [N, H, W, C] and targets [N, H, W, C']; grey becomes a picture of greys where the other is colour."""
    outputs, targets = samples.same_channels([outputs, targets])
    return Likeness(
        float(judge.distances(outputs, targets).mean()), mean_ssim(outputs, targets), mean_l1(outputs, targets)
    )


def mean_ssim(pixels: Pixels, others: Pixels) -> float:
    """Structural similarity; in batches, for of all pictures at once it would hold many copies in floats.

    Reference: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, with its
    window of 11 pixels.
    """
    total = 0.0
    for start in range(0, len(pixels), BATCH):
        ours, theirs = (_unit(columns[start : start + BATCH]) for columns in (pixels, others))
        ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0)
        assert isinstance(ssim, Tensor)
        total += float(ssim) * len(ours)
    return total / len(pixels)


def mean_l1(pixels: Pixels, others: Pixels) -> float:
    """Mean absolute difference, as a share of the range from black to white."""
    pixels, others = samples.same_channels([pixels, others])
    return float(np.abs(pixels.astype(np.int16) - others).mean() / 255)


def _unit(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
