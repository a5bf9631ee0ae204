"""What a picture file says of itself, read without decoding it: its size, whether it moves, where it ends.

A reader goes from part to part (PNG and WebP call them chunks, JPEG segments) and holds the file to the limits below,
which pictures of the world stay far from, and which bound the time and the memory that a small file can ask for.
"""

import re
import struct
from typing import NamedTuple

from service.errors import MalformedRequest, UnsupportedMediaType

MAX_PARTS = 1000  # not counting those of 256 and more bytes of a PNG's pixels
MAX_TEXTS = 16  # of PNG; Pillow unpacks each to at most 1 MiB
MAX_SCANS = 100  # of JPEG; each goes over all pixels, and need not be longer than 30 bytes


class Outline(NamedTuple):
    """A file before it is decoded."""

    width: int
    height: int
    content: bytes
    """The file, as a decoder should get it."""
    exif: bytes
    """As TIFF, empty if there is none."""


def outline_png(content: bytes) -> Outline:
    """
    Raises:
        MalformedRequest, UnsupportedMediaType: see `read_picture`.

    Reference: W3C, "Portable Network Graphics (Third Edition)", sections 5.3 and 11.
    """
    if content[12:16] != b"IHDR":
        raise MalformedRequest("the PNG does not begin with IHDR")
    width, height = struct.unpack_from(">2I", content, 16)
    exif, kind = b"", b""
    at, parts, texts = 8, 0, 0
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        begin, at = at + 8, at + 12 + length
        if kind == b"acTL":
            raise UnsupportedMediaType("the PNG is animated; send a still picture")
        if kind == b"eXIf":
            exif = content[begin : begin + length]
        parts += kind != b"IDAT" or length < 256
        texts += kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
        if parts > MAX_PARTS or texts > MAX_TEXTS:
            raise MalformedRequest(f"the PNG has more than {MAX_PARTS} chunks, or {MAX_TEXTS} of text")
    _check_end("PNG", content, at)
    return Outline(width, height, content, exif)


# Not among them: stuffed zeros, fill bytes and those that stand alone (ISO/IEC 10918-1, table B.1).
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_KNOWN = {*range(0xC0, 0xF0), 0xFE} - {0xC8}


def outline_jpeg(content: bytes) -> Outline:
    """Content goes on without EXIF: Pillow would read all of it for the resolution, and warn of each tag that is wrong.

    Raises:
        MalformedRequest: see `read_picture`.

    Reference: ISO/IEC 10918-1, annex B.
    """
    width = height = parts = scans = 0
    exif, kept, at = b"", [content[:2]], 2
    while found := _MARKER.search(content, at):
        marker, begin = found[1][0], found.end()
        if marker == _EOI:
            break
        if marker not in _KNOWN:
            raise MalformedRequest(f"the JPEG has a segment of unknown kind {marker:#x}")
        (length,) = struct.unpack_from(">H", content, begin)
        segment, end = content[begin + 2 : begin + length], begin + length
        if marker in _SOF:
            height, width = struct.unpack_from(">2H", segment, 1)
        if marker == _APP1 and segment.startswith(b"Exif\0\0"):
            exif = segment[6:]
            end = found.start()
        kept.append(content[at:end])
        parts, scans = parts + 1, scans + (marker == _SOS)
        if parts > MAX_PARTS or scans > MAX_SCANS:
            raise MalformedRequest(f"the JPEG has more than {MAX_PARTS} segments or {MAX_SCANS} scans")
        at = begin + length
    else:
        raise MalformedRequest("the JPEG is cut short")
    kept.append(content[at:begin])
    # Cameras put further pictures behind the first: previews, depth, brightness. They are not looked at.
    if not content.startswith(b"\xff\xd8\xff", begin):
        _check_end("JPEG", content, begin)
    return Outline(width, height, b"".join(kept), exif)


def outline_webp(content: bytes) -> Outline:
    """
    Raises:
        MalformedRequest, UnsupportedMediaType: see `read_picture`.

    Reference: RFC 9649, sections 2 and 3.4; RFC 6386, section 9.1.
    """
    exif, at, parts = b"", 12, 0
    sizes: set[tuple[int, int]] = set()
    (riff_size,) = struct.unpack_from("<I", content, 4)
    while at < 8 + riff_size:
        kind, length = struct.unpack_from("<4sI", content, at)
        begin, at = at + 8, at + 8 + length + length % 2
        if kind == b"VP8X":
            flags, *size = struct.unpack_from("<B3x3s3s", content, begin)
            if flags & 2:
                raise UnsupportedMediaType("the WebP is animated; send a still picture")
            width, height = (1 + int.from_bytes(side, "little") for side in size)
            sizes.add((width, height))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", content, begin + 1)
            sizes.add((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<2H", content, begin + 6)
            sizes.add((width & 0x3FFF, height & 0x3FFF))
        elif kind == b"EXIF":
            exif = content[begin : begin + length]
        parts += 1
        if parts > MAX_PARTS:
            raise MalformedRequest(f"the WebP has more than {MAX_PARTS} chunks")
    _check_end("WebP", content, at)
    if len(sizes) != 1:
        raise MalformedRequest(f"the WebP gives {len(sizes)} sizes; a picture has one")
    return Outline(*sizes.pop(), content, exif.removeprefix(b"Exif\0\0"))


def _check_end(kind: str, content: bytes, end: int) -> None:
    if end > len(content):
        raise MalformedRequest(f"the {kind} is cut short: {end - len(content)} bytes are missing")
    if end < len(content):
        raise MalformedRequest(f"{len(content) - end} bytes follow the end of the {kind}; send the picture alone")
