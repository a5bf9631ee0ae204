"""Reads the files of a bundle: regular ones, inside its directory, as large as allowed, with the promised hash.

Hard links are read like any other file: container layers and content-addressed stores are made of them, nobody can tell
one from a copy, and whatever a name leads to must have the manifest's hash.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from service.errors import InvalidBundle

MAX_BUNDLE_BYTES = 2 * 2**30
CHUNK = 2**20


def read_file(directory: Path, name: str, *, max_bytes: int) -> bytes:
    """The content of one file.

    Raises:
        InvalidBundle: if it cannot be read, is no regular file, leads out of the directory, or is larger than that.
    """
    with _open_regular(directory, name) as stream:
        try:
            content = stream.read(max_bytes + 1)
        except OSError as error:
            raise _unreadable(name, error) from error
    if len(content) > max_bytes:
        raise InvalidBundle(f"{name} is larger than {max_bytes} bytes, the most allowed")
    return content


def read_verified(
    directory: Path, sha256: Mapping[str, str], *, wanted: Collection[str], max_bytes: int = MAX_BUNDLE_BYTES
) -> dict[str, bytes]:
    """Compare every file with its hash, and give the content of those that are wanted.

    Args:
        sha256: file name -> hex digest.
        wanted: names of files to keep; the others are hashed piece by piece.
        max_bytes: of all files together, known before the first of them is read.

    Raises:
        InvalidBundle: if a file is not as it should be, or all of them are too large.
    """
    contents = {}
    with ExitStack() as stack:
        streams = {name: stack.enter_context(_open_regular(directory, name)) for name in sha256}
        sizes = {name: os.fstat(stream.fileno()).st_size for name, stream in streams.items()}
        if sum(sizes.values()) > max_bytes:
            raise InvalidBundle(
                f"its files are {sum(sizes.values())} bytes, more than the {max_bytes} of SERVICE_MAX_BUNDLE_BYTES"
            )
        for name, stream in streams.items():
            try:
                if name in wanted:
                    contents[name] = stream.read(sizes[name])
                    found = hashlib.sha256(contents[name]).hexdigest()
                else:
                    found = _digest(stream, sizes[name])
            except OSError as error:
                raise _unreadable(name, error) from error
            if found != sha256[name]:
                raise InvalidBundle(f"sha256 of {name} is {found[:12]}..., the manifest says {sha256[name][:12]}...")
    return contents


def _open_regular(directory: Path, name: str) -> BinaryIO:
    try:
        path = os.path.realpath(directory / name, strict=True)
        if not Path(path).is_relative_to(os.path.realpath(directory)):
            raise InvalidBundle(f"{name} is a link out of the bundle; put the file itself there")
        # Asked before opening, for to open some devices is to act on them, and again afterwards, of what was opened.
        if stat.S_ISREG(os.stat(path).st_mode):
            # Without O_NONBLOCK a FIFO would be waited for. Windows knows none of these flags.
            flags = (
                os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            )
            stream = os.fdopen(os.open(path, flags), "rb")
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return stream
            stream.close()
    except OSError as error:
        raise _unreadable(name, error) from error
    raise InvalidBundle(f"{name} is not a regular file")


def _digest(stream: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (piece := stream.read(min(size, CHUNK))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _unreadable(name: str, error: OSError) -> InvalidBundle:
    return InvalidBundle(f"cannot read {name}: {error.strerror}")
