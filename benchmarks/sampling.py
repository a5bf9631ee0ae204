"""Many pictures in one answer: how fast they come, and what a long answer does to the server's memory."""

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx2
import numpy as np

from benchmarks.environments import Unavailable
from benchmarks.servers import Running

TIMEOUT_SECONDS = 300  # between two pieces of an answer
LOOK_SECONDS = 0.25


def count_in_tar(content: bytes) -> int:
    """Pictures in a tar."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return sum(name.endswith(".png") for name in archive.getnames())


def count_in_npz(content: bytes) -> int:
    """Pictures in an npz: rows of its one array of four axes."""
    with np.load(io.BytesIO(content)) as arrays:
        return next(len(arrays[name]) for name in arrays.files if arrays[name].ndim == 4)


FORMATS: dict[str, Callable[[bytes], int]] = {"tar": count_in_tar, "npz": count_in_npz}
"""Format -> how many pictures an answer of it holds."""


def pictures_per_second(running: Running, format_: str, count: int) -> float:
    """Of one answer of `count` pictures, from the request to its end.

    Raises:
        Unavailable: if the server knows no such route, refuses, breaks off or sends another number.
    """
    content = bytearray()
    with httpx2.Client(timeout=TIMEOUT_SECONDS) as client:  # made before: it takes tens of milliseconds
        began = time.monotonic()
        for piece in _pieces(client, running, format_, count):
            content += piece
        seconds = time.monotonic() - began
    if (got := FORMATS[format_](bytes(content))) != count:
        raise Unavailable(f"POST /sample of {count} as {format_} holds {got} pictures")
    return count / seconds


def growth_megabytes(running: Running, format_: str, count: int) -> float:
    """Highest PSS and RSS seen while an answer was read, over that before; the larger of the two differences.

    Raises:
        Unavailable: see `pictures_per_second`; how many came is not counted.
    """
    before = running.megabytes()
    peak, over = dict(before), Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            for kind, value in running.megabytes().items():
                peak[kind] = max(peak[kind], value)

    with httpx2.Client(timeout=TIMEOUT_SECONDS) as client, ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(watch)
        try:
            for _ in _pieces(client, running, format_, count):
                pass
        finally:
            over.set()
        watching.result()
    return max(peak[kind] - before[kind] for kind in before)


def _pieces(client: httpx2.Client, running: Running, format_: str, count: int) -> Iterator[bytes]:
    body = {"count": count, "format": format_}
    try:
        with client.stream("POST", f"http://127.0.0.1:{running.port}/sample", json=body) as answer:
            if answer.status_code != 200:
                raise Unavailable(f"POST /sample of {count} as {format_} answers {answer.status_code}")
            yield from answer.iter_raw()
    except httpx2.HTTPError as error:
        raise Unavailable(f"POST /sample of {count} as {format_}: {error}") from error
