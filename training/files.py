"""How files appear: whole or not at all. They are written aside, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A path for the block to write to, beside `path` and of its suffix, which some writers go by. What is there takes
    the place of `path` if the block succeeds and is deleted if it fails.

    Args:
        durable: whether to wait until a power cut leaves the new file, which is slow; without it, it may leave either
            of the two, or an empty one.
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield aside
        if durable:
            to_disk(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    if durable:
        to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Wait until what a file holds, or which files a folder holds, survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
