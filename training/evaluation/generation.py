"""Sampling: what is measured of a generator z, y -> picture, on which samples, beside which floor and ceiling.

Everything is measured against the held-out split, by a judge that has not seen it: a classifier of the training split,
or, where there are no classes to tell apart, the judge of likeness. The floor is the same number for real pictures, the
ceiling for pictures of pure noise; without both, no number means anything.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.manifest import Metric
from training.datasets import DatasetError, Pictures
from training.evaluation.base import AbstractEvaluation, EvaluationError, Report, Subject, count
from training.evaluation.perceptual import PerceptualJudge, perceptual_judge
from training.graph import Sampler
from training.judge import JUDGE_FILE, Judge, as_pixels, judge_of, train_classifier
from training.metrics import FEATURE_METRICS, LEAST, Features

Sample = Callable[[NDArray[np.uint64], NDArray[np.int64]], NDArray[np.uint8]]
"""(seeds [N], labels [N]) -> pixels [N, H, W, C]."""

BATCH = 250
# Far apart, so that the network learns from no sample that is judged; and far from the small seeds that people look at.
FIRST_SEED_TO_JUDGE = 1 << 40
FIRST_SEED_TO_LEARN_FROM = 1 << 41


@dataclass(frozen=True)
class Generation(AbstractEvaluation):
    """Sampling; the fields say how many samples each number is taken on."""

    judged: int = 10_000
    """Generated samples for the feature metrics and label accuracy."""
    learnt_from: int | None = None
    """Generated samples for the classification accuracy score; None = as many as there are real training pictures."""

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        parser.add_argument(
            "--judged", type=count, default=10_000, help="samples shown to the judge (default: %(default)s)"
        )
        parser.add_argument(
            "--learnt-from",
            type=count,
            help="samples for the classification accuracy score (default: as many as real ones)",
        )

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        return cls(judged=arguments.judged, learnt_from=arguments.learnt_from)

    def measure(self, subject: Subject, others: Sequence[Subject]) -> Report:
        if others:
            raise EvaluationError("generators that sample are measured one by one; leave --against out")
        train, test = subject.recipe.data.load("train"), subject.recipe.data.load("test")
        if not isinstance(train, Pictures) or not isinstance(test, Pictures):
            raise DatasetError(f"generators that sample are measured by pictures, and the data are {train}")
        expect_enough(train, test, self.judged)
        assert subject.latent is not None
        sample = Sampler(subject.run, subject.latent)
        if len(train.classes) < 2:  # a classifier would learn nothing, and be right of noise too
            return Report(evaluate_without_classes(sample, train, test, perceptual_judge(), self))
        kept = None if subject.folder is None else subject.folder / JUDGE_FILE
        judge = Judge(kept) if kept is not None and kept.exists() else judge_of(train)
        return Report(evaluate(sample, train, test, judge, self), files={JUDGE_FILE: judge.path})


def expect_enough(train: Pictures, test: Pictures, judged: int) -> None:
    """
    Raises:
        EvaluationError: if a set that is to be compared has no neighbourhoods.
    """
    if len(test) < 2 * LEAST:
        raise EvaluationError(
            f"{len(test)} pictures are held out of {len(train) + len(test)}, and each half of them needs {LEAST}; "
            f"raise held_out in the recipe's [data] or add pictures, until {2 * LEAST} are held out, and train again"
        )
    if len(train) < LEAST:
        raise EvaluationError(
            f"{len(train)} pictures are left to train on of {len(train) + len(test)}, and {LEAST} are needed; "
            "lower held_out in the recipe's [data] or add pictures, and train again"
        )
    if judged < LEAST:
        raise EvaluationError(f"--judged is {judged}; {LEAST} samples are needed, and thousands to mean anything")


@dataclass(frozen=True)
class _Sets:
    """Pixels [N, H, W, C] of what is compared."""

    real: NDArray[np.uint8]
    """All held-out pictures."""
    fake: NDArray[np.uint8]
    labels: NDArray[np.int64]
    """That the fake ones were asked for."""
    noise: NDArray[np.uint8]
    """As many as real ones."""
    shown: NDArray[np.uint8]
    """Training pictures, as many as fake ones: neighbourhoods depend on how many points there are."""


def _sets(sample: Sample, train: Pictures, test: Pictures, judged: int) -> _Sets:
    labels = test.labels.numpy()[_some(test, judged)]
    fake = draw(sample, labels, FIRST_SEED_TO_JUDGE, "samples for the judge")
    noise = np.random.default_rng(0).integers(0, 256, (len(test), *fake.shape[1:]), np.uint8)
    return _Sets(as_pixels(test), fake, labels, noise, as_pixels(train)[_some(train, min(judged, len(train)))])


def evaluate(sample: Sample, train: Pictures, test: Pictures, judge: Judge, protocol: Generation) -> dict[str, Metric]:
    """Every number of the protocol, by its full name, of pictures in several classes."""
    sets = _sets(sample, train, test, protocol.judged)
    truth = test.labels.numpy()
    real, fake, noise, shown = map(judge.opinion, (sets.real, sets.fake, sets.noise, sets.shown))
    accuracy = real.accuracy(truth)
    learnt_from = protocol.learnt_from or len(train)
    metrics = {
        "judge_accuracy": Metric(value=accuracy, better="higher", n=len(test), judge=judge.hash),
        "label_accuracy": Metric(
            value=fake.accuracy(sets.labels),
            better="higher",
            n=len(sets.fake),
            floor={"test": accuracy},
            ceiling=noise.accuracy(truth),
            judge=judge.hash,
        ),
        **_feature_metrics(real.features, fake.features, noise.features, shown.features, judge.hash),
        "cas": _classification_accuracy(
            sample, train=train, test=test, learnt_from=learnt_from, judge_accuracy=accuracy, judge_hash=judge.hash
        ),
    }
    return {_full_name(name, metric): metric for name, metric in metrics.items()}


def evaluate_without_classes(
    sample: Sample, train: Pictures, test: Pictures, judge: PerceptualJudge, protocol: Generation
) -> dict[str, Metric]:
    """Those numbers of the protocol that ask for no class, by their full names."""
    sets = _sets(sample, train, test, protocol.judged)
    real, fake, noise, shown = map(judge.content, (sets.real, sets.fake, sets.noise, sets.shown))
    metrics = _feature_metrics(real, fake, noise, shown, judge.hash)
    return {_full_name(name, metric): metric for name, metric in metrics.items()}


def _full_name(name: str, metric: Metric) -> str:
    return f"{name}[judge@{metric.judge}]" if metric.judge else name


def draw(sample: Sample, labels: NDArray[np.int64], first_seed: int, title: str) -> NDArray[np.uint8]:
    """One sample per label, with seeds counting up from `first_seed`."""
    seeds = np.arange(len(labels), dtype=np.uint64) + np.uint64(first_seed)
    with tqdm(total=len(labels), desc=title, unit="img", leave=False, disable=None) as bar:
        parts = []
        for start in range(0, len(labels), BATCH):
            parts.append(sample(seeds[start : start + BATCH], labels[start : start + BATCH]))
            bar.update(len(parts[-1]))
    return np.concatenate(parts)


def _some(pictures: Pictures, count: int) -> NDArray[np.int64]:
    """Indices of `count` pictures, all classes in their proportions; repeated if there are fewer."""
    return np.resize(np.random.default_rng(0).permutation(len(pictures)), count)


def _feature_metrics(
    real: Features, fake: Features, noise: Features, shown: Features, judge_hash: str
) -> dict[str, Metric]:
    half, other_half = np.array_split(np.random.default_rng(0).permutation(len(real)), 2)
    metrics = {}
    for compare in FEATURE_METRICS.values():
        ceilings = compare(real, noise)
        halves = compare(real[half], real[other_half])
        splits = compare(real, shown)
        for name, score in compare(real, fake).items():
            metrics[name] = Metric(
                value=score.value,
                better=score.better,
                n=len(fake),
                floor={"train_against_test": splits[name].value, "half_against_half": halves[name].value},
                ceiling=ceilings[name].value,
                judge=judge_hash,
            )
    return metrics


def _classification_accuracy(
    sample: Sample, *, train: Pictures, test: Pictures, learnt_from: int, judge_accuracy: float, judge_hash: str
) -> Metric:
    """Accuracy on real held-out pictures of a network that saw only generated ones.

    The judge is that network after the same schedule on all the real pictures: its accuracy is the floor for as many.

    Reference: Ravuri & Vinyals, "Classification Accuracy Score for Conditional Generative Models", 2019,
    arXiv:1905.10887.
    """
    chosen = _some(train, learnt_from)
    labels = train.labels.numpy()[chosen]
    samples = draw(sample, labels, FIRST_SEED_TO_LEARN_FROM, "samples to learn from")
    pixels, truth, num_classes = as_pixels(test), test.labels.numpy(), len(train.classes)

    def accuracy(shown: NDArray[np.uint8], of: NDArray[np.int64], title: str) -> float:
        logits = train_classifier(shown, of, num_classes, title).logits(pixels)
        return float((logits.argmax(1) == truth).mean())

    real_accuracy = judge_accuracy
    if learnt_from != len(train):
        real_accuracy = accuracy(as_pixels(train)[chosen], labels, "learning from real pictures")
    return Metric(
        value=accuracy(samples, labels, "learning from generated pictures"),
        better="higher",
        n=len(samples),
        floor={"train": real_accuracy},
        ceiling=1 / num_classes,
        judge=judge_hash,
    )
