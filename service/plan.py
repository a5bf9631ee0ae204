"""Which samples a request of many means, in order. A plan for a million holds no more than a plan for one."""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar, overload

from service.bundle import Bundle
from service.errors import InvalidValue, TooLarge, json_pointer
from service.latents import fresh_seed
from service.pixels import Pixels
from service.sample import Sample
from service.work import Work

T = TypeVar("T")

INDEX = re.compile("0|[1-9][0-9]{0,8}")
SMALLEST_PIECE = 8
"""Rows of the last pieces of a long answer; smaller ones would cost more than they save."""

Piece = Sequence[tuple[int, Sample]]
"""Some samples, and the index of each in the request."""

ClassName = str | int
Classes = ClassName | Sequence[ClassName] | Mapping[str, int]
"""One class for all, several in turn, or how many of each."""


class Ranges(Sequence[int]):
    """Integers of several ranges, one range after the other."""

    def __init__(self, ranges: Sequence[range]) -> None:
        self.ranges = [range_ for range_ in ranges if range_]
        self._ends = list(accumulate(range_.stop - range_.start for range_ in self.ranges))

    @property
    def total(self) -> int:
        """How many, also where that is more than `len` can tell."""
        return self._ends[-1] if self._ends else 0

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = bisect_right(self._ends, index)
        return self.ranges[which][index - (self._ends[which - 1] if which else 0)]

    def rest(self, start: int) -> "Ranges":
        """Those from index `start` on."""
        ends = [0, *self._ends]
        return Ranges([range_[max(0, start - before) :] for range_, before in zip(self.ranges, ends, strict=False)])


@dataclass(frozen=True)
class Plan:
    """Samples of one bundle: sample i is a function of the request and of i."""

    bundle: Bundle
    seeds: Ranges
    label_at: Callable[[int], int | None]
    truncation: float
    start: int = 0
    """Samples of the request that come before these; names count them."""

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        seeds: Ranges | None = None,
        first_seed: int | None = None,
        count: int | None = None,
        classes: Classes | None = None,
        truncation: float = 1.0,
        start: int = 0,
        max_count: int = 1_000_000,
    ) -> "Plan":
        """What a request asks for, checked against what the bundle can do.

        Args:
            seeds: one for each sample; excludes `first_seed` and `count`.
            first_seed: sample i has seed `first_seed + i`, modulo the number of seeds; None draws one.
            count: of samples; the histogram's sum if `classes` is one.
            classes: None gives every class its turn, if the bundle knows classes.
            truncation: in (0, 1], 1 is off.
            start: how many of the samples to leave out, from the first on; the others are what they are without it.
            max_count: most samples of one plan, those left out included.

        Raises:
            InvalidValue: if these do not fit together, or not the bundle.
            TooLarge: if there are more than `max_count`.
        """
        label_at, total = _labels(bundle, classes)
        named = seeds is not None or first_seed is not None
        if seeds is None:
            count = total if count is None else count
            if count is None:
                raise InvalidValue(
                    "count is missing; send count, seeds, or classes as {class: count}", pointer="/count"
                )
            first = fresh_seed() if first_seed is None else bundle.check_seed(first_seed)
            seeds = Ranges([range(first, min(first + count, bundle.seeds)), range(first + count - bundle.seeds)])
        elif first_seed is not None or count is not None:
            raise InvalidValue("seeds says which samples; leave seed and count out", pointer="/seeds")
        elif not seeds.total:
            raise InvalidValue("seeds is empty; send at least one", pointer="/seeds")
        else:
            for range_ in seeds.ranges:
                bundle.check_seed(range_[-1], pointer="/seeds")
        if total is not None and total != seeds.total:
            raise InvalidValue(
                f"classes add up to {total} pictures, seeds or count to {seeds.total}; leave one of them out",
                pointer="/classes",
            )
        if seeds.total > max_count:
            raise TooLarge(
                f"{seeds.total} pictures are asked for; one request takes at most {max_count}: ask for fewer"
            )
        if start and not named:
            raise InvalidValue(
                f"start is {start}, and the seeds before it would be drawn; send seed or seeds", pointer="/seed"
            )
        if start >= seeds.total:
            raise InvalidValue(
                f"start is {start}, and there are {seeds.total} pictures; it leaves out at most {seeds.total - 1}",
                pointer="/start",
            )
        plan = cls(bundle, seeds.rest(start), lambda index: label_at(start + index), truncation, start)
        plan[0]  # says now what does not suit the bundle
        return plan

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:
        return self.bundle.sample(seed=self.seeds[index], class_=self.label_at(index), truncation=self.truncation)

    @property
    def pixels(self) -> int:
        """Of all pictures together."""
        height, width, _ = self.bundle.shape
        return len(self) * height * width

    def works(
        self, packing: Callable[[Piece], Callable[[Pixels], T]], indices: range | None = None
    ) -> Iterator[Work[T]]:
        """The work that makes samples, piece by piece: full batches, and smaller ones towards the end, so that no
        runner waits long for the last.

        Reference: Polychronopoulos and Kuck, "Guided Self-Scheduling", IEEE Transactions on Computers C-36(12), 1987.

        Args:
            packing: gives what is to become of a piece's pixels.
            indices: of the samples, one after the other; None is all of them.
        """
        left = range(len(self)) if indices is None else indices
        runners, unit = self.bundle.batcher.runners, self.bundle.batcher.unit
        largest = self.bundle.rows_per_batch
        smallest = min(SMALLEST_PIECE, math.ceil(len(left) / runners))
        while left:
            rows = max(smallest, math.ceil(len(left) / (2 * runners - 1)))
            rows = min(largest, math.ceil(rows / unit) * unit)
            piece = [(self.start + index, self[index]) for index in left[:rows]]
            left = left[rows:]
            yield self.bundle.work([sample for _, sample in piece], packing(piece))


def _labels(bundle: Bundle, classes: Classes | None) -> tuple[Callable[[int], int | None], int | None]:
    """Index to label, and how many there are if the classes say so."""
    if classes is None:
        names = bundle.manifest.classes
        return (lambda _: None) if names is None else (lambda index: index % len(names)), None
    if isinstance(classes, Mapping):
        labels = [_label(bundle, _key(bundle, name), json_pointer(["classes", name])) for name in classes]
        ends = list(accumulate(classes.values()))
        if not ends or not ends[-1]:
            raise InvalidValue(
                "classes asks for no picture at all; give one class a count of 1 or more", pointer="/classes"
            )
        return (lambda index: labels[bisect_right(ends, index)]), ends[-1]
    if isinstance(classes, str | int):
        label = _label(bundle, classes, "/classes")
        return (lambda _: label), None
    if not classes:
        raise InvalidValue("classes is empty; leave it out for all classes in turn", pointer="/classes")
    turns = [_label(bundle, name, f"/classes/{index}") for index, name in enumerate(classes)]
    return (lambda index: turns[index % len(turns)]), None


def _key(bundle: Bundle, name: str) -> ClassName:
    """What a histogram's key means. JSON has no integer keys: an index arrives as text."""
    is_index = name not in (bundle.manifest.classes or ()) and INDEX.fullmatch(name)
    return int(name) if is_index else name


def _label(bundle: Bundle, name: ClassName, pointer: str) -> int | None:
    try:
        return bundle.label(name)
    except InvalidValue as error:
        error.place(pointer=pointer)
        raise
