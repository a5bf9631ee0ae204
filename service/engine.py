"""Where graphs are opened and run: here, or in processes of their own (`processes.py`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.cpus import available_cpus
from service.files import MAX_BUNDLE_BYTES, read_verified
from service.generator import Generator, Measured
from service.golden import GoldenReport
from service.graph_check import check_graph
from service.manifest import GENERATOR_FILE, GOLDEN_FILE, Manifest
from service.runtime import CPU, Provider
from service.tasks import task_of
from service.turns import Turns
from service.work import Computed, Work, compute


@dataclass(frozen=True)
class Opened:
    """What is known of a graph that has been opened, tried and warmed."""

    measured: Measured
    golden: GoldenReport


class Engine(Protocol):
    """Opens the graphs of bundles and runs them; any thread may call."""

    def open(self, directory: Path, manifest: Manifest) -> Opened:
        """Verify, open, measure and warm a bundle's graph.

        Raises:
            InvalidBundle: if a file or the graph is not as it should be.
            ModelFailure: if the hardware that was asked for is not there.
        """

    def compute(self, name: str, works: Sequence[Work[Any]], ran: Callable[[], object] = lambda: None) -> Computed:
        """Run works for the bundle of that name as one batch.

        Args:
            name: of the bundle.
            works: at least one.
            ran: is called when it would take the next batch, which may be before this one has its files.

        Raises:
            ModelFailure: if there is nothing that could run it any more.
        """

    def turns(self, provider: str) -> Turns:
        """How many batches it runs at a time on that provider; all bundles share them."""

    def start(self) -> None:
        """After the last `open`: get ready for work everywhere, not only where it was opened."""

    def close(self) -> None:
        """Let go of everything; no more is asked."""


class Here:
    """Runs graphs in the threads that ask for it: little memory, but they all share Python's lock.

    Args:
        provider: the hardware to run on.
        max_bytes: of one bundle, all files together.
    """

    def __init__(self, provider: Provider = "auto", *, max_bytes: int = MAX_BUNDLE_BYTES) -> None:
        self.generators: dict[str, Generator] = {}
        self._turns: dict[str, Turns] = {}
        self._provider = provider
        self._max_bytes = max_bytes

    def open(self, directory: Path, manifest: Manifest) -> Opened:
        self.generators[manifest.name], opened = open_bundle(directory, manifest, self._provider, self._max_bytes)
        return opened

    def compute(self, name: str, works: Sequence[Work[Any]], ran: Callable[[], object] = lambda: None) -> Computed:
        return compute(self.generators[name], works, ran)

    def turns(self, provider: str) -> Turns:
        # Sessions of one thread share no kernel, so one caller for each CPU; a GPU's work is one stream.
        return self._turns.setdefault(provider, Turns(available_cpus() if provider == CPU else 1))

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass


def open_bundle(directory: Path, manifest: Manifest, provider: Provider, max_bytes: int) -> tuple[Generator, Opened]:
    """A generator for a bundle that nothing is known of yet, and what is known then.

    Raises:
        InvalidBundle, ModelFailure: see `Engine.open`.
    """
    files = _read(directory, manifest, (GENERATOR_FILE, GOLDEN_FILE), max_bytes)
    check_graph(files[GENERATOR_FILE])
    generator = Generator(files[GENERATOR_FILE], task_of(manifest), provider=provider)
    golden = generator.task.check_golden(files.get(GOLDEN_FILE), generator.run, generator.measured.provider)
    return generator, Opened(generator.measured, golden)


def read_graph(directory: Path, manifest: Manifest, max_bytes: int = MAX_BUNDLE_BYTES) -> bytes:
    """A bundle's graph, as its manifest knows it.

    Raises:
        InvalidBundle: if the file is not as it should be.
    """
    return _read(directory, manifest, (GENERATOR_FILE,), max_bytes)[GENERATOR_FILE]


def _read(directory: Path, manifest: Manifest, names: Sequence[str], max_bytes: int) -> dict[str, bytes]:
    """Those of the files that the manifest knows. The others have been hashed by whoever loads the bundle."""
    sha256 = {name: manifest.sha256[name] for name in names if name in manifest.sha256}
    return read_verified(directory, sha256, wanted=names, max_bytes=max_bytes)
