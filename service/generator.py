"""One ONNX Runtime session behind one method. No HTTP, no asyncio."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidBundle, ModelFailure, NonFiniteOutput, first_line
from service.golden import GoldenReport
from service.manifest import Manifest
from service.pixels import Pixels
from service.runtime import CUDA, Provider, open_session

Feed = dict[str, NDArray[Any]]

Tensors = dict[str, tuple[str, list[int | None]]]
"""What is expected of a graph's inputs or outputs: name -> type, and the sizes after N; None must be symbolic."""

MAX_BATCH = 32
"""Rows."""
WARM_UP_ROWS = 8
CROWD = [7, 1, 2, 5, 4, 3, 6, 0, 1, 0, 3, 2, 6, 7, 5, 4] * (MAX_BATCH // 16)
"""As many as there may ever be: a graph that fails, or takes too much memory, for so many is not served."""
COMPANIES = [[0], [7], [3, 1], [6, 7, 5], CROWD]
"""Rows of the warm-up that are run together: alone, in pairs, in other places, with other neighbours."""


@dataclass(frozen=True)
class Trial:
    """Rows on which the warm-up measures whether company changes them, and how long they take."""

    feed: Feed
    """All of them are run together first; the others are compared with that."""
    companies: Sequence[Sequence[int]] = tuple(COMPANIES)


class AbstractTask(ABC):
    """What a bundle does, as far as opening and running its graph needs to know. One for each bundle; it is cheap.

    Raises:
        InvalidBundle: if the manifest cannot be of this task.
    """

    batches: ClassVar[tuple[int, ...]] = (WARM_UP_ROWS,)
    """Fixed sizes of a batch to try, where rows are not the same in any company, before they are run one by one."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @property
    @abstractmethod
    def inputs(self) -> Tensors:
        """What the graph must take."""

    @property
    def outputs(self) -> Tensors:
        """What the graph must give."""
        output = self.manifest.output
        return {"pixels": ("tensor(uint8)", [output.height, output.width, output.channels])}

    @property
    @abstractmethod
    def max_pixels(self) -> int:
        """Most pixels of the pictures that come out of a batch, for the sake of memory."""

    @abstractmethod
    def shape(self, feed: Feed) -> tuple[int, ...]:
        """Of one row of what the graph makes of a feed."""

    @abstractmethod
    def trials(self) -> Sequence[Trial]:
        """Rows to warm up on, of each size that must be tried; always the same."""

    @abstractmethod
    def check_golden(self, content: bytes | None, run: Callable[[Feed], Pixels], provider: str) -> GoldenReport:
        """Make the golden samples again.

        Args:
            content: of `golden.npz`; None if the bundle has none.
            run: the graph.
            provider: what it runs on.

        Raises:
            InvalidBundle: see `service/golden.py`.
        """


@dataclass(frozen=True)
class Measured:
    """What opening a graph has found out."""

    provider: str
    """As ONNX Runtime names it."""
    batch: int | None
    """Rows of every run; None if any number gives the same rows."""
    exact: bool
    """Whether the measurement found each row the same in any company."""
    seconds_per_pixel: float
    """Of the pictures that come out; of one thread, in the batches of the measurement."""

    @property
    def determinism(self) -> str:
        """How the promise is kept: `exact; batch=free`, `exact; batch=8`, or `unproven; batch=1`."""
        return f"{'exact' if self.exact else 'unproven'}; batch={self.batch or 'free'}"


class Generator:
    """A graph's inputs in, pixels out; row i of the answer is a function of row i of the inputs, and of nothing else.

    Opening one checks that the graph's inputs and outputs are those that the manifest implies, and measures whether
    company changes a row. Where it does, and always on CUDA, every run has one fixed number of rows.

    Args:
        model: the graph, serialised.
        task: of its bundle.
        provider: the hardware to run on.
        measured: by another process with this graph on this hardware; it is not measured again.

    Raises:
        InvalidBundle: if ONNX Runtime refuses the graph, or the graph is not what the manifest says.
        ModelFailure: if `provider` asks for hardware that is not there.
    """

    def __init__(
        self, model: bytes, task: AbstractTask, *, provider: Provider = "auto", measured: Measured | None = None
    ) -> None:
        self.task = task
        self._session = open_session(model, provider)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._check_signature()
        self.measured = measured or self._warm_up()

    def padding(self, rows: int) -> int:
        """Rows that `run` computes besides those it is given."""
        return 0 if self.measured.batch is None else -rows % self.measured.batch

    def run(self, feed: Feed) -> Pixels:
        """Compute pictures.

        Args:
            feed: arrays [N, ...] by the name of the graph's input.

        Returns:
            uint8 [N, height, width, channels].

        Raises:
            ModelFailure: if ONNX Runtime fails.
            NonFiniteOutput: if the graph says so of one of the rows.
        """
        return self._run_in(self.measured.batch, feed)

    def _run_in(self, batch: int | None, feed: Feed) -> Pixels:
        rows = len(next(iter(feed.values())))
        if batch is None or rows == batch:
            return self._run(feed)
        # Pad with copies of the last row; then every run has the one shape.
        padded = {name: np.concatenate([array, array[-1:].repeat(-rows % batch, 0)]) for name, array in feed.items()}
        parts = [
            self._run({name: array[start : start + batch] for name, array in padded.items()})
            for start in range(0, rows, batch)
        ]
        pixels: Pixels = np.concatenate(parts)[:rows]
        return pixels

    def _run(self, feed: Feed) -> Pixels:
        rows = len(next(iter(feed.values())))
        try:
            outputs = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except Exception as error:
            raise ModelFailure(f"the generator failed on {rows} {'row' if rows == 1 else 'rows'}") from error
        pixels: Pixels = outputs["pixels"]
        shape = (rows, *self.task.shape(feed))
        if pixels.shape != shape:
            raise ModelFailure(f"the generator gave pixels {list(pixels.shape)}, not {list(shape)}")
        # Pixels are bytes, in which NaN is some colour or other; only the graph can still tell.
        if "finite" in outputs and not (len(outputs["finite"]) == rows and outputs["finite"].all()):
            raise NonFiniteOutput("the generator computed NaN or infinity instead of a picture; try another seed")
        return pixels

    def _check_signature(self) -> None:
        _check_tensors("inputs", self._session.get_inputs(), self.task.inputs)
        outputs = self.task.outputs
        if "finite" in self._outputs:  # bundles made before there was this output are still served
            outputs["finite"] = ("tensor(bool)", [])
        _check_tensors("outputs", self._session.get_outputs(), outputs)

    def _warm_up(self) -> Measured:
        """Kernels may differ by a batch's size, a row's place, its neighbours."""
        try:
            batch, exact, seconds_per_pixel = self._measure()
        except ModelFailure as error:
            cause = f": {first_line(error.__cause__)}" if error.__cause__ else ""
            raise InvalidBundle(f"warming up: {error.detail}{cause}") from error
        return Measured(self._session.get_providers()[0], batch, exact, seconds_per_pixel)

    def _measure(self) -> tuple[int | None, bool, float]:
        """`batch`, `exact`, `seconds_per_pixel`."""
        trials = self.task.trials()
        # Free never on CUDA: a size that has not been measured may have another kernel.
        free = () if self._session.get_providers()[0] == CUDA else (None,)
        # Without company nothing is left to depend on but the kernels' own whim.
        for batch in (*free, *self.task.batches, 1):
            exact, seconds_per_pixel = self._try(batch, trials)
            if exact:
                break
        return batch, exact, seconds_per_pixel

    def _try(self, batch: int | None, trials: Sequence[Trial]) -> tuple[bool, float]:
        """Whether each row is the same in any company, and the seconds per pixel: each trial's best, of the slowest."""
        exact, slowest = True, 0.0
        for trial in trials:
            expected, best = self._timed(batch, trial.feed)
            for rows in trial.companies:
                pixels, seconds_per_pixel = self._timed(batch, _pick(trial.feed, rows))
                best = min(best, seconds_per_pixel)
                exact = exact and np.array_equal(pixels, expected[list(rows)])
            slowest = max(slowest, best)
        return exact, slowest

    def _timed(self, batch: int | None, feed: Feed) -> tuple[Pixels, float]:
        began = perf_counter()
        pixels = self._run_in(batch, feed)
        return pixels, (perf_counter() - began) / math.prod(pixels.shape[:3])


def _pick(feed: Feed, rows: Sequence[int]) -> Feed:
    return {name: array[list(rows)] for name, array in feed.items()}


def _check_tensors(what: str, found: list[Any], expected: Tensors) -> None:
    """Compare a graph's inputs or outputs with what is expected; N must be symbolic, the rest may be."""
    names = [tensor.name for tensor in found]
    if sorted(names) != sorted(expected):
        raise InvalidBundle(f"the graph's {what} are {', '.join(names)}; the manifest implies {', '.join(expected)}")
    for tensor in found:
        dtype, sizes = expected[tensor.name]
        if tensor.type != dtype:
            raise InvalidBundle(f"the graph's {tensor.name} is {tensor.type}; the contract says {dtype}")
        if isinstance(tensor.shape[0] if tensor.shape else 0, int):
            raise InvalidBundle(f"the graph's {tensor.name} has shape {tensor.shape}; its first size must be dynamic")
        if len(tensor.shape) != len(sizes) + 1 or any(
            isinstance(size, int) and size != wanted for size, wanted in zip(tensor.shape[1:], sizes, strict=True)
        ):
            raise InvalidBundle(
                f"the graph's {tensor.name} has shape {tensor.shape}; the manifest implies {['N', *sizes]}"
            )
