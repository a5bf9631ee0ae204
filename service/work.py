"""What a generator is asked for: rows for its graph, and what becomes of their pixels.

Work and its results travel from process to process, so all that they hold can be pickled: callable data classes and
functions of modules, no lambdas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from service.generator import Feed, Generator
from service.pixels import Pixels

T = TypeVar("T")


class Runs(Protocol):
    """What `compute` needs of a generator."""

    def run(self, feed: Feed) -> Pixels: ...

    def padding(self, rows: int) -> int: ...


@dataclass(frozen=True)
class Work(Generic[T]):
    """Rows for a graph. What `feed` and `finish` raise harms this work alone."""

    rows: int
    pixels: int
    """Of all that comes out of the graph: what it costs, in time and in memory."""
    feed: Callable[[Any], Feed]
    """The generator to arrays [rows, ...] by the name of the graph's input."""
    finish: Callable[[Pixels], T]
    """uint8 [rows, height, width, channels] to the result, for example a file."""
    shape: tuple[int, ...] = ()
    """Only work of one shape shares a batch."""


@dataclass(frozen=True)
class Result:
    """What became of one work: a value, or the reason why there is none."""

    value: Any = None
    error: Exception | None = None
    encode: float = 0.0
    """Seconds that `finish` took."""


@dataclass(frozen=True)
class Computed:
    """A batch that has been run."""

    results: list[Result]
    """One for each work, in order."""
    compute: float = 0.0
    """Seconds in the graph."""
    encode: float = 0.0
    """Seconds of all that came after it."""
    padding: int = 0
    """Rows computed for nobody."""


@dataclass(frozen=True)
class TrialRows:
    """Feeds what the warm-up runs on, the largest of it."""

    rows: int

    def __call__(self, generator: Generator) -> Feed:
        feed = generator.task.trials()[-1].feed
        return {name: np.resize(array, (self.rows, *array.shape[1:])) for name, array in feed.items()}


def keep(pixels: Pixels) -> Pixels:
    """A `finish` for those who want the pixels themselves."""
    return pixels


def compute(generator: Runs, works: Sequence[Work[Any]], ran: Callable[[], object] = lambda: None) -> Computed:
    """Run works as one batch. If that fails each runs alone, once: one of them may be to blame, the others are not.

    Args:
        generator: runs it.
        works: at least one.
        ran: is called when the graph has run, and what is left is to finish more than one picture.
    """
    results: dict[int, Result] = {}
    feeds: dict[int, Feed] = {}
    for index, work in enumerate(works):
        try:
            feeds[index] = work.feed(generator)
        except Exception as error:
            results[index] = Result(error=error)
    began = ended = perf_counter()
    start = 0
    if feeds:
        try:
            pixels = generator.run(_concatenate(list(feeds.values())))
        except Exception as error:
            if len(works) == 1:
                error.add_note(f"while computing {works[0].feed}")  # for the log, not for clients
                return Computed([Result(error=error)])
            return join([compute(generator, [work]) for work in works])
        ended = perf_counter()
        if len(pixels) > 1:  # to say so takes as long as one file
            ran()
        for index in feeds:
            work = works[index]
            results[index] = _finish(work, pixels[start : start + work.rows])
            start += work.rows
    encode = perf_counter() - ended
    return Computed([results[index] for index in range(len(works))], ended - began, encode, generator.padding(start))


def join(parts: Sequence[Computed]) -> Computed:
    """Batches that ran one after the other as one."""
    return Computed(
        [result for part in parts for result in part.results],
        sum(part.compute for part in parts),
        sum(part.encode for part in parts),
        sum(part.padding for part in parts),
    )


def _finish(work: Work[Any], pixels: Pixels) -> Result:
    since = perf_counter()
    try:
        value = work.finish(pixels)
    except Exception as error:
        return Result(error=error)
    return Result(value, encode=perf_counter() - since)


def _concatenate(feeds: Sequence[Feed]) -> Feed:
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
