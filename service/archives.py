"""Many samples as one stream: one class for each container, and one dict.

What `packing` gives runs beside the generator and turns a piece into what the container needs of it; `write` puts
pieces in order. A container holds no time, host or user, so the same request is the same bytes; and however many
samples there are, few are in memory.
"""

import base64
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.lib import format as npy

from service.errors import TooLarge
from service.formats import FORMATS, Format
from service.pixels import Pixels
from service.plan import Piece, Plan
from service.sample import Several
from service.work import keep

if TYPE_CHECKING:
    from stream_zip import MemberFile

ArchiveName = Literal["zip", "tar", "npz", "json", "sheet"]
Packed = TypeVar("Packed")

NEVER = datetime(1980, 1, 1)  # the earliest time that ZIP can tell
BLOCK = tarfile.BLOCKSIZE
CHECKSUM = slice(148, 156)
"""Where it stands in a header of ustar."""


class Archive(Generic[Packed]):
    """A container of samples. `file_format` is how each picture in it is stored, where it stores files."""

    media_type: ClassVar[str]
    extension: ClassVar[str]
    whole: ClassVar[bool] = False
    """Whether all pieces must be there before its first byte."""

    def __init__(self, plan: Plan, file_format: Format, *, max_pixels: float = math.inf) -> None:
        self.plan = plan
        self.file_format = file_format

    def packing(self, piece: Piece) -> Callable[[Pixels], Packed]:
        """What turns the pixels of a piece, [N, height, width, channels], into its part; in another process."""
        raise NotImplementedError

    def write(self, pieces: Iterable[Packed]) -> Iterator[bytes]:
        """The container's bytes, as the pieces arrive."""
        raise NotImplementedError


class Tar(Archive[bytes]):
    """WebDataset layout: members `KEY.png`, `KEY.cls` (the label, if there are classes) and `KEY.json`.

    Reference: https://github.com/webdataset/webdataset, "The WebDataset Format".
    """

    media_type = "application/x-tar"
    extension = "tar"

    def packing(self, piece: Piece) -> Callable[[Pixels], bytes]:
        return partial(_tar_members, piece, self.file_format)

    def write(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from pieces
        yield bytes(2 * BLOCK)  # the end of an archive


class Zip(Archive[list[tuple[str, bytes]]]):
    """A folder for each class, which image-folder readers take as it is; each picture says in itself what made it."""

    media_type = "application/zip"
    extension = "zip"

    def packing(self, piece: Piece) -> Callable[[Pixels], list[tuple[str, bytes]]]:
        folders = [f"{folder}/" for folder in class_folders(self.plan.bundle.manifest.classes or ())]
        return partial(_zip_files, piece, self.file_format, folders)

    def write(self, pieces: Iterable[list[tuple[str, bytes]]]) -> Iterator[bytes]:
        return zip_of(file for piece in pieces for file in piece)


class Npz(Archive[bytes]):
    """For `numpy.load`: pixels uint8 [N, H, W, C], seeds uint64 [N], labels int64 [N] if there are classes, and
    `model`, JSON that says what made them.
    """

    media_type = "application/x-npz"
    extension = "npz"

    def packing(self, piece: Piece) -> Callable[[Pixels], bytes]:
        return _bytes

    def write(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        plan, count = self.plan, len(self.plan)
        facts = {
            key: value
            for key, value in plan[0].to_dict().items()
            if key in {"model", "version", "digest", "truncation"}
        }
        model = np.array(json.dumps({**facts, "classes": plan.bundle.manifest.classes}))
        members = [
            _array("pixels", "|u1", (count, *plan.bundle.shape), pieces),
            _array("seeds", "<u8", (count,), _in_pieces(plan, lambda i: plan.seeds[i], "<u8")),
            _array("model", model.dtype.str, (), [model.tobytes()]),
        ]
        if plan.bundle.manifest.classes:
            members.append(_array("labels", "<i8", (count,), _in_pieces(plan, plan.label_at, "<i8")))
        return _zip(members)


class Json(Archive[list[str]]):
    """`{"samples": [...]}`: for each its id, seed, class and the rest, and the file of its picture in base64."""

    media_type = "application/json"
    extension = "json"

    def packing(self, piece: Piece) -> Callable[[Pixels], list[str]]:
        return partial(_json_objects, piece, self.file_format)

    def write(self, pieces: Iterable[list[str]]) -> Iterator[bytes]:
        before = '{"samples":['
        for piece in pieces:
            yield (before + ",".join(piece)).encode()
            before = ","
        yield b"]}"


class Sheet(Archive[Pixels]):
    """One PNG with all pictures, row by row, as square as they allow; the one container that is held in memory."""

    media_type = "image/png"
    extension = "png"
    whole = True

    def __init__(self, plan: Plan, file_format: Format, *, max_pixels: float = math.inf) -> None:
        super().__init__(plan, file_format, max_pixels=max_pixels)
        height, width, _ = plan.bundle.shape
        if len(plan) * height * width > max_pixels:
            raise TooLarge(
                f"a sheet of {len(plan)} pictures has more than {max_pixels} pixels; "
                f"ask for {max_pixels // (height * width)} at most, or for a tar"
            )

    def packing(self, piece: Piece) -> Callable[[Pixels], Pixels]:
        return keep

    def write(self, pieces: Iterable[Pixels]) -> Iterator[bytes]:
        origin = Several({"sheet": [self.plan[index].id for index in range(len(self.plan))]})
        yield FORMATS["png"].encode(contact_sheet(np.concatenate(list(pieces))), origin)


ARCHIVES: dict[ArchiveName, type[Archive[Any]]] = {
    "zip": Zip,
    "tar": Tar,
    "npz": Npz,
    "json": Json,
    "sheet": Sheet,
}


ContainerName = Literal["zip", "tar"]
Files = Iterable[tuple[str, bytes]]


def zip_of(files: Files) -> Iterator[bytes]:
    """A zip of files by their names, in order."""
    members = (_zip_member(name, len(content), [content]) for name, content in files)
    return _zip(members)


def tar_of(files: Files) -> Iterator[bytes]:
    """A tar of the same."""
    for name, content in files:
        yield _tar_member(name, content)
    yield bytes(2 * BLOCK)


@dataclass(frozen=True)
class Container:
    """How several files leave as one."""

    media_type: str
    extension: str
    write: Callable[[Files], Iterator[bytes]]


CONTAINERS: dict[ContainerName, Container] = {
    "zip": Container(Zip.media_type, Zip.extension, zip_of),
    "tar": Container(Tar.media_type, Tar.extension, tar_of),
}


def contact_sheet(pixels: Pixels) -> Pixels:
    """Pictures [N, H, W, C] side by side, row by row, on white: one picture [rows * H, columns * W, C]."""
    count, height, width, channels = pixels.shape
    columns = min(count, int(np.ceil(np.sqrt(count * height / width))))
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height, width, channels), 255, np.uint8)
    sheet[:count] = pixels
    return (
        sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, -1)
    )


def class_folders(classes: Sequence[str]) -> list[str]:
    """A folder's name for each class: its own name, as far as every file system takes it; else its label before it."""
    names = [
        "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name[:100]).strip(". ")
        for name in classes
    ]
    if len({name.lower() for name in names}) == len(names) and all(names):
        return names
    width = len(str(len(names) - 1))
    return [f"{label:0{width}d}-{name}" for label, name in enumerate(names)]


def _tar_members(piece: Piece, file_format: Format, pixels: Pixels) -> bytes:
    members = []
    for (index, sample), picture in zip(piece, pixels, strict=True):
        key = f"{index:08d}"
        members.append(keyed_member(key, file_format.extension, file_format.encode(picture, sample)))
        if sample.label is not None:
            members.append(keyed_member(key, "cls", str(sample.label).encode()))
        members.append(keyed_member(key, "json", sample.to_json().encode()))
    return b"".join(members)


def _zip_files(piece: Piece, file_format: Format, folders: Sequence[str], pixels: Pixels) -> list[tuple[str, bytes]]:
    files = []
    for (index, sample), picture in zip(piece, pixels, strict=True):
        folder = "" if sample.label is None else folders[sample.label]
        files.append((f"{folder}{index:08d}.{file_format.extension}", file_format.encode(picture, sample)))
    return files


def _bytes(pixels: Pixels) -> bytes:
    return pixels.tobytes()


def _json_objects(piece: Piece, file_format: Format, pixels: Pixels) -> list[str]:
    return [
        json.dumps(
            {
                **sample.to_dict(),
                "media_type": file_format.media_type,
                "image": base64.b64encode(file_format.encode(picture, sample)).decode("ascii"),
            },
            separators=(",", ":"),
        )
        for (_, sample), picture in zip(piece, pixels, strict=True)
    ]


def _tar_member(name: str, content: bytes) -> bytes:
    return _tar_header(name, len(content)) + content + bytes(-len(content) % BLOCK)


def _tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    # As USTAR, unless a name is too long or too foreign for that.
    return info.tobuf(tarfile.PAX_FORMAT)


def keyed_member(key: str, extension: str, content: bytes) -> bytes:
    """A member of a tar, of the name KEY.EXTENSION: the bytes that `tarfile` makes of it, in a tenth of the time.

    The headers of thousands differ in the key alone, which is made of digits. So it is written into one of a key of
    zeros, and added to its checksum: the sum of a header's bytes, in octal (POSIX.1-1988, ustar).
    """
    header, checksum = _header_without_key(len(key), extension, len(content))
    digits = key.encode("ascii")
    return b"".join(
        (
            digits,
            header[len(digits) : CHECKSUM.start],
            b"%06o\0 " % (checksum + sum(digits)),
            header[CHECKSUM.stop :],
            content,
            bytes(-len(content) % BLOCK),
        )
    )


@lru_cache(maxsize=4096)
def _header_without_key(digits: int, extension: str, size: int) -> tuple[bytes, int]:
    """The header of a key of zeros, and its checksum but for them."""
    header = _tar_header(f"{'0' * digits}.{extension}", size)
    return header, int(header[CHECKSUM].rstrip(b"\0 "), 8) - digits * ord("0")


def _zip(members: "Iterable[MemberFile]") -> Iterator[bytes]:
    # It imports ciphers: tenths of a second, not of the start, but in the thread that writes the first zip.
    from stream_zip import stream_zip  # noqa: PLC0415

    yield from stream_zip(members, extended_timestamps=False)


def _zip_member(name: str, size: int, chunks: Iterable[bytes]) -> "MemberFile":
    from stream_zip import ZIP_AUTO  # noqa: PLC0415

    # Level 0: pictures are compressed already, and arrays are wanted soon.
    return name, NEVER, 0o644, ZIP_AUTO(size, level=0), chunks


def _array(name: str, dtype: str, shape: tuple[int, ...], chunks: Iterable[bytes]) -> "MemberFile":
    """A member of an npz file: an array in C order."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    size = header.tell() + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return _zip_member(f"{name}.npy", size, _evenly(chain([header.getvalue()], chunks)))


def _evenly(chunks: Iterable[bytes], size: int = 64 * 1024) -> Iterator[bytes]:
    """The same bytes in chunks of `size`. A member's blocks end where its chunks do, and how many pictures a piece has
    is a matter of how busy the machine is.
    """
    held = bytearray()
    for chunk in chunks:
        held += chunk
        start = 0
        for start in range(size, len(held) + 1, size):
            yield bytes(held[start - size : start])
        del held[:start]
    if held:
        yield bytes(held)


def _in_pieces(plan: Plan, value_at: Any, dtype: str, size: int = 4096) -> Iterator[bytes]:
    for start in range(0, len(plan), size):
        values = [value_at(index) for index in range(start, min(start + size, len(plan)))]
        yield np.array(values, dtype).tobytes()
