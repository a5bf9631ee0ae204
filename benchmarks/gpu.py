"""What only a machine with a GPU can tell: python -m benchmarks.gpu [--bundle models/fashion]

Run it once there, in the environment of `pip install '.[gpu]'`. It prints what CUDA really runs on, whether rows depend
on their batch, throughput beside the CPU, and what IO binding and CUDA graphs gain. Without a GPU it says so, and ends
with 2.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.cuda import Buffered, CudaSettings, provider_options
from service.errors import ModelFailure
from service.generator import MAX_BATCH, Generator
from service.manifest import GENERATOR_FILE, Manifest
from service.runtime import CUDA, cuda_session_options, open_session
from service.tasks import task_of
from service.tasks.generate import Generate

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
ROUNDS, RUNS = 5, 20
WITHOUT_GPU = 2


class Bundle:
    """A bundle's graph, and rows for it."""

    def __init__(self, directory: Path) -> None:
        self.manifest = Manifest.read(directory)
        self.graph = (directory / GENERATOR_FILE).read_bytes()
        task = task_of(self.manifest)
        if not isinstance(task, Generate):
            raise SystemExit(f"{directory} does not make pictures from seeds; this measures bundles that do")
        self.task = task

    def feed(self, rows: int, first_seed: int = 0) -> dict[str, NDArray[Any]]:
        classes = len(self.manifest.classes or ())
        labels = [row % classes if classes else None for row in range(rows)]
        return self.task.feed(range(first_seed, first_seed + rows), labels, [1.0] * rows)


def cuda_session(graph: bytes, options: dict[str, str], *, profile: str | None = None) -> Any:
    """A session with CUDA options of one's own, without IO binding."""
    import onnxruntime  # noqa: PLC0415

    settings = cuda_session_options(onnxruntime)
    if profile:
        settings.enable_profiling, settings.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(graph, settings, providers=[(CUDA, options), "CPUExecutionProvider"])


def nodes_by_provider(bundle: Bundle) -> Counter[str]:
    """Where the nodes of the graph really ran."""
    with tempfile.TemporaryDirectory() as directory:
        session = cuda_session(bundle.graph, provider_options(CudaSettings()), profile=f"{directory}/run")
        session.run(["pixels"], bundle.feed(MAX_BATCH))
        events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(each["args"]["provider"] for each in events if each.get("args", {}).get("provider"))


def determinism(run: Callable[[dict[str, NDArray[Any]]], NDArray[Any]], bundle: Bundle) -> dict[int, int]:
    """For each batch size the largest difference, in levels of 255, of any row from the same row in a batch of 8."""
    rows = max(BATCHES)
    feed = bundle.feed(rows)

    def in_batches(size: int) -> NDArray[Any]:
        parts = [
            run({name: array[start : start + size] for name, array in feed.items()}) for start in range(0, rows, size)
        ]
        return np.concatenate(parts).astype(np.int16)

    expected = in_batches(8)
    return {size: int(np.abs(in_batches(size) - expected).max()) for size in BATCHES}


def pictures_per_second(run: Callable[[dict[str, NDArray[Any]]], Any], bundle: Bundle, rows: int) -> float:
    """Without encoding; the median of some rounds."""
    feed, rates = bundle.feed(rows), []
    for _ in range(3):
        run(feed)
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(RUNS):
            run(feed)
        rates.append(RUNS * rows / (perf_counter() - began))
    return statistics.median(rates)


def runner(session: Any) -> Callable[[dict[str, NDArray[Any]]], NDArray[Any]]:
    """Rows in, pixels out."""
    return lambda feed: np.asarray(session.run(["pixels"], feed)[0])


def measure(bundle: Bundle) -> None:
    """Print all of it, for a GPU that has been found."""
    options = provider_options(CudaSettings())
    print(f"CUDA options: {options}")
    print(f"nodes by provider: {dict(nodes_by_provider(bundle))}")
    plain = cuda_session(bundle.graph, options)
    cpu = open_session(bundle.graph, "cpu")

    print("\ndeterminism: largest difference of a row from itself in a batch of 8, in levels of 255")
    sessions = {
        "CUDA": plain,
        "CUDA, a second session": cuda_session(bundle.graph, options),
        "CUDA, TF32": cuda_session(bundle.graph, {**options, "use_tf32": "1"}),
        "CPU": cpu,
    }
    print("| batch |", " | ".join(map(str, BATCHES)), "|")
    for name, session in sessions.items():
        print(f"| {name} |", " | ".join(map(str, determinism(runner(session), bundle).values())), "|")
    feed = bundle.feed(MAX_BATCH)
    first, *others = (runner(session)(feed).astype(np.int16) for session in sessions.values())
    for name, pixels in zip(list(sessions)[1:], others, strict=True):
        print(f"CUDA against {name}: at most {np.abs(pixels - first).max()} levels")
    print(f"the service would run it as: {Generator(bundle.graph, bundle.task, provider='cuda').measured}")

    print("\npictures/s of the graph, without encoding")
    graphs = {**options, "enable_cuda_graph": "1"}
    ways: dict[str, Callable[[int], Callable[..., Any]]] = {
        "CPU, 1 thread": lambda rows: runner(cpu),
        "CUDA": lambda rows: runner(plain),
        "CUDA, IO binding": lambda rows: runner(Buffered(plain)),
        "CUDA, TF32": lambda rows: runner(sessions["CUDA, TF32"]),
        # A session for each size: a graph is captured for one.
        "CUDA, IO binding, CUDA graph": lambda rows: runner(Buffered(cuda_session(bundle.graph, graphs))),
    }
    print("| way |", " | ".join(map(str, BATCHES)), "|")
    for name, way in ways.items():
        cells = []
        for rows in BATCHES:
            try:
                cells.append(f"{pictures_per_second(way(rows), bundle, rows):,.0f}")
            except Exception as error:  # a graph that cannot be captured is a result too
                cells.append(type(error).__name__)
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("models/fashion"))
    bundle = Bundle(parser.parse_args().bundle)
    try:
        session = open_session(bundle.graph, "cuda")
    except ModelFailure as error:
        print(f"NOT MEASURED: {error.detail}", file=sys.stderr)
        sys.exit(WITHOUT_GPU)
    print(f"{bundle.manifest.name}: {session.get_providers()[0]}")
    measure(bundle)


if __name__ == "__main__":
    main()
