"""Bodies that bring pictures: one as it is, one or several in a form, several in a zip.

A body is in memory as a whole, as long as it may be; nothing in it is written to disk, and nothing is unpacked to more
than that. What its pictures are called is used for the names in the answer, and for nothing else.
"""

import io
import logging
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from service.errors import (
    GaneryError,
    InvalidValue,
    MalformedRequest,
    TooLarge,
    UnsupportedMediaType,
    json_pointer,
)
from service.uploads import READERS, either

PICTURES = "image"
"""The form's field that brings pictures, once or several times."""
MAX_FIELDS = 16
"""Of a form, besides the pictures."""
MAX_FIELD_BYTES = 1000
MAX_NAME = 100
"""Characters of a file's or folder's name that are kept."""
MAX_NAME_BYTES = 200
"""The same in UTF-8: file systems take 255, a number and a suffix included."""
MAX_FOLDERS = 4
_FOLDER_OF_MACOS = "__MACOSX"
_FILES_OF_WINDOWS = {"Thumbs.db", "desktop.ini"}

# What it finds wrong with a form is the answer; strangers do not write our log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Picture:
    """One file, not looked at."""

    content: bytes
    name: str = ""
    """As it came; empty if there is none."""


@dataclass(frozen=True)
class Brought:
    """What a body holds."""

    pictures: list[Picture]
    several: bool = False
    """Whether the answer to it is several pictures: a zip, or a form with more than one."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The form's other fields."""


@dataclass(frozen=True)
class BodyLimits:
    """How much a body may bring."""

    pictures: int
    unpacked_bytes: int


def read_pictures(body: bytes, content_type: str, limits: BodyLimits) -> Brought:
    """What a body holds.

    Args:
        body: the whole body.
        content_type: the header; a single picture may be declared as any picture, its first bytes decide.
        limits: of what it may bring.

    Raises:
        UnsupportedMediaType: if the type is none of those that bring pictures.
        MalformedRequest: if a form or a zip cannot be read, or the zip is empty.
        TooLarge: if there are more pictures, or a zip unpacks to more bytes.
        InvalidValue: if a form brings no picture, a field twice, a file in another field than theirs, or text in it.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    reader = BODIES.get(media_type, _alone if media_type.startswith("image/") else None)
    if reader is None:
        raise UnsupportedMediaType(
            f"Content-Type is {media_type[:100]}; send {either(reader.media_type for reader in READERS.values())}, "
            "multipart/form-data, or application/zip"
        )
    return reader(body, content_type, limits)


def _alone(body: bytes, content_type: str, limits: BodyLimits) -> Brought:
    return Brought([Picture(body)])


def _form(body: bytes, content_type: str, limits: BodyLimits) -> Brought:
    pictures: list[Picture] = []
    fields: dict[str, str] = {}
    ended = False

    def on_file(file: File) -> None:
        _expect(_text(file.field_name) == PICTURES, _text(file.field_name), "a file")
        if len(pictures) >= limits.pictures:
            raise TooLarge(f"the form has more than {limits.pictures} pictures; send fewer")
        file.file_object.seek(0)
        picture = Picture(file.file_object.read(), _text(file.file_name))
        if picture != Picture(b""):  # as browsers send where no file has been chosen
            pictures.append(picture)

    def on_field(part: Field) -> None:
        name = _text(part.field_name)
        _expect(name != PICTURES, name, "text")
        if name in fields:
            raise InvalidValue(f"{name[:100]} comes twice in the form", pointer=json_pointer([name[:100]]))
        if len(fields) >= MAX_FIELDS or len(part.value or b"") > MAX_FIELD_BYTES:
            raise TooLarge(
                f"the form has more than {MAX_FIELDS} fields, or one of more than {MAX_FIELD_BYTES} bytes; "
                "send fewer or shorter ones"
            )
        fields[name] = _text(part.value)

    def on_end() -> None:
        nonlocal ended
        ended = True

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedRequest("Content-Type is multipart/form-data without a boundary; let the client write it")
    config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "UPLOAD_ERROR_ON_BAD_CTE": True}
    try:
        parser = FormParser("multipart/form-data", on_field, on_file, on_end, boundary=boundary, config=config)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise MalformedRequest(f"the form cannot be read: {str(error)[:200]}") from None
    if not ended:
        raise MalformedRequest("the form is cut short: its last boundary is missing")
    if not pictures:
        raise InvalidValue(f"{PICTURES} is missing; send a picture's file in this field", pointer=f"/{PICTURES}")
    return Brought(pictures, len(pictures) > 1, fields)


def _expect(holds: bool, name: str, came: str) -> None:
    if not holds:
        raise InvalidValue(
            f"the field {name[:100]!r} is {came}; pictures come as files in {PICTURES!r}, all else is text",
            pointer=json_pointer([name[:100]]),
        )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _zip(body: bytes, content_type: str, limits: BodyLimits) -> Brought:
    # Before it is read: each entry of its directory becomes an object, however many there are.
    if body.count(b"PK\1\2") > 4 * limits.pictures:
        raise TooLarge(f"the zip has more than {limits.pictures} pictures; send fewer")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            pictures = _members(archive, limits)
    except (GaneryError, MemoryError):
        raise
    except Exception as error:  # the reader raises whatever the bytes lead it to
        raise MalformedRequest(f"the zip cannot be read: {str(error)[:200]}") from None
    if not pictures:
        raise MalformedRequest("the zip holds no picture")
    return Brought(pictures, several=True)


def _members(archive: zipfile.ZipFile, limits: BodyLimits) -> list[Picture]:
    infos = [info for info in archive.infolist() if not info.is_dir() and _may_be_picture(info.filename)]
    if len(infos) > limits.pictures:
        raise TooLarge(f"the zip has {len(infos)} pictures; at most {limits.pictures} are taken: send fewer")
    pictures, left = [], limits.unpacked_bytes
    for info in infos:
        name = info.filename
        if info.flag_bits & 1:
            raise MalformedRequest(f"{name[:100]!r} in the zip is encrypted; send it without a password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise MalformedRequest(
                f"{name[:100]!r} in the zip is compressed by another method than deflate; send it deflated or stored"
            )
        with archive.open(info) as stream:
            content = stream.read(left + 1)  # never more, whatever the archive promises or holds
        left -= len(content)
        if left < 0:
            raise TooLarge(
                f"the zip unpacks to more than {limits.unpacked_bytes} bytes; send fewer or smaller pictures"
            )
        pictures.append(Picture(content, name))
    return pictures


def _may_be_picture(name: str) -> bool:
    """Whether it is none of what macOS, Windows and others put beside the files of a zip."""
    *folders, file = name.split("/")
    return not (_FOLDER_OF_MACOS in folders or file.startswith(".") or file in _FILES_OF_WINDOWS)


BODIES: dict[str, Callable[[bytes, str, BodyLimits], Brought]] = {
    "multipart/form-data": _form,
    "application/zip": _zip,
    "application/x-zip-compressed": _zip,
    # What clients send who know nothing of types, curl's --data-binary among them.
    "application/octet-stream": _alone,
    "application/x-www-form-urlencoded": _alone,
    "": _alone,
}


def safe_names(names: Iterable[str], extension: str) -> list[str]:
    """Names for an archive: as they came, without their suffix, and nothing of what could lead out of a folder.

    Letters and digits of any script, dots, dashes, underscores and spaces are kept, everything else becomes `_`; a file
    without a name is called by its place, and a name that comes again, whatever its case, gets a number.
    """
    stems = [_safe_path(name) or f"{index:08d}" for index, name in enumerate(names)]
    folders = {folder for stem in stems for folder in accumulate(stem.casefold().split("/")[:-1], "{}/{}".format)}
    used: set[str] = set()
    numbers: dict[str, int] = {}  # the last that a name has had
    safe = []
    for stem in stems:
        unique, number = stem, numbers.get(stem.casefold(), 1)
        while unique.casefold() in used or f"{unique}.{extension}".casefold() in folders:
            number += 1
            unique = f"{stem}-{number}"
        numbers[stem.casefold()] = number
        used.add(unique.casefold())
        safe.append(f"{unique}.{extension}")
    return safe


def _safe_path(name: str) -> str:
    *folders, file = re.split(r"[/\\]", name)
    stem = file.rpartition(".")[0] or file
    parts = [_safe_part(part) for part in (*folders[-MAX_FOLDERS:], stem)]
    return "/".join(part for part in parts if part) if parts[-1] else ""


def _safe_part(part: str) -> str:
    # Cut first: to put combining characters in order takes the square of their number.
    normal = unicodedata.normalize("NFC", part[: 4 * MAX_NAME])
    kept = "".join(c if c.isalnum() or c in "._- " else "_" for c in normal[:MAX_NAME])
    return kept.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip(". ")
