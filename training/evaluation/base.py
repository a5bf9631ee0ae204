"""What is measured, and what every evaluation gives."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from PIL import Image

from service.manifest import Latent, Metric, Task
from training.graph import RunGraph
from training.recipe import Recipe


class EvaluationError(Exception):
    """Generators that cannot be measured, or not beside each other; the message says why."""


@dataclass(frozen=True)
class Subject:
    """A generator to measure, out of a run or a bundle: the exported graph with averaged weights."""

    name: str
    task: Task
    recipe: Recipe
    run: RunGraph
    latent: Latent | None
    direction: str | None = None
    """Which of the generators that the recipe trains together."""
    back: RunGraph | None = None
    """The generator of the other direction, if there is one."""
    folder: Path | None = None
    """Of the bundle; None for a run."""


@dataclass(frozen=True)
class Report:
    """What was measured, and what goes into the bundle with it."""

    metrics: dict[str, Metric]
    """By full name, which holds the judge's hash."""
    files: dict[str, Path] = field(default_factory=dict)
    """To be copied under these names."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    """To be saved under these names."""


class AbstractEvaluation(ABC):
    """The protocol of one task."""

    @staticmethod
    @abstractmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        """The options of `evaluate` that only this task has."""

    @classmethod
    @abstractmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """The protocol as the options set it."""

    @abstractmethod
    def measure(self, subject: Subject, others: Sequence[Subject]) -> Report:
        """Every number of the protocol, beside those of `others`, on data that none of them was trained on.

        Raises:
            EvaluationError: if they cannot be compared.
        """


def table(metrics: dict[str, Metric]) -> str:
    """The numbers as a Markdown table; a column for each of the others that they stand beside."""
    others = list(dict.fromkeys(name for metric in metrics.values() for name in metric.beside))
    heads = ["metric", "value", *others, "real", "noise", "samples"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, metric in metrics.items():
        beside = [f"{metric.beside[other]:.4g}" if other in metric.beside else "-" for other in others]
        floors = ", ".join(f"{value:.4g} ({kind.replace('_', ' ')})" for kind, value in metric.floor.items()) or "-"
        ceiling = "-" if metric.ceiling is None else f"{metric.ceiling:.4g}"
        cells = [f"`{name}`", f"{metric.value:.4g}", *beside, floors, ceiling, f"{metric.n:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def count(text: str) -> int:
    """An option's value: how many samples."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of samples; at least 2")
    return int(text)
