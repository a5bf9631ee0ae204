"""Many pictures in one answer: how fast they come, and what a long answer does to the server's memory."""

import io
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import httpx2
import numpy as np

from benchmarks.environments import Unavailable
from benchmarks.servers import Running

TIMEOUT_SECONDS = 300  # between two pieces of an answer
LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Stream:
    """One long answer that was read to its end."""

    pictures_per_second: float
    growth_megabytes: float
    """Highest PSS and RSS seen while it was read, over that before; memory shared or not, the larger of the two."""


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


def stream(running: Running, format_: str, count: int, *, keep: bool) -> Stream:
    """Ask for `count` pictures in one answer.

    Args:
        keep: check how many came; else they are thrown away as they come.

    Raises:
        Unavailable: if the server knows no such route, refuses, breaks off or sends another number.
    """
    before = running.megabytes()
    peak, content = dict(before), bytearray()
    over = Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            for kind, value in running.megabytes().items():
                peak[kind] = max(peak[kind], value)

    body = {"count": count, "format": format_}
    url = f"http://127.0.0.1:{running.port}/sample"
    with ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(watch)
        began = time.monotonic()
        try:
            with httpx2.stream("POST", url, json=body, timeout=TIMEOUT_SECONDS) as answer:
                if answer.status_code != 200:
                    raise Unavailable(f"POST /sample of {count} as {format_} answers {answer.status_code}")
                for piece in answer.iter_raw():
                    content += piece if keep else b""
        except httpx2.HTTPError as error:
            raise Unavailable(f"POST /sample of {count} as {format_}: {error}") from error
        finally:
            seconds = time.monotonic() - began
            over.set()
        watching.result()
    if keep and (got := FORMATS[format_](bytes(content))) != count:
        raise Unavailable(f"POST /sample of {count} as {format_} holds {got} pictures")
    return Stream(count / seconds, max(peak[kind] - before[kind] for kind in before))
