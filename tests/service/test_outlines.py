import io
import struct
import zlib

import pytest
from PIL import Image

from service.errors import MalformedRequest, UnsupportedMediaType
from service.outlines import MAX_PARTS, MAX_SCANS, MAX_TEXTS, outline_jpeg, outline_png, outline_webp

READERS = {"PNG": outline_png, "JPEG": outline_jpeg, "WEBP": outline_webp}


def saved(format_, size=(7, 5), mode="RGB", **settings):
    stream = io.BytesIO()
    Image.new(mode, size, 0).save(stream, format_, **settings)
    return stream.getvalue()


def png(*chunks):
    head = (b"IHDR", struct.pack(">2I5B", 7, 5, 8, 0, 0, 0, 0))
    parts = [head, *chunks, (b"IDAT", zlib.compress(bytes(40))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def webp(*chunks):
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize(
    ("format_", "settings"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*"}),
        ("WEBP", {"mode": "RGBA"}),
    ],
)
def test_tells_the_size(format_, settings):
    outline = READERS[format_](saved(format_, **settings))
    assert (outline.width, outline.height) == (7, 5)
    assert outline.exif == settings.get("exif", b"")[6:]


@pytest.mark.parametrize("format_", READERS)
def test_every_cut_is_seen(format_):
    whole = saved(format_)
    for length in range(12, len(whole)):
        with pytest.raises((MalformedRequest, struct.error)):
            READERS[format_](whole[:length])


@pytest.mark.parametrize("format_", READERS)
def test_nothing_may_follow(format_):
    with pytest.raises(MalformedRequest, match=r"^22 bytes follow the end of the "):
        READERS[format_](saved(format_) + b"PK\5\6" + bytes(18))


def test_cameras_may_put_pictures_behind_a_jpeg():
    whole = saved("JPEG")
    assert outline_jpeg(whole + saved("JPEG", (70, 50))).content == whole


def test_a_jpeg_goes_on_without_its_exif():
    plain = saved("JPEG")
    outline = outline_jpeg(plain[:2] + segment(0xE1, b"Exif\0\0MM\0*" + bytes(100)) + plain[2:])
    assert outline.content == plain
    assert outline.exif == b"MM\0*" + bytes(100)


def test_exif_cannot_hide_in_a_segment_of_unknown_kind():
    """Pillow reads on inside of one, as if its length were not there."""
    plain, exif = saved("JPEG"), segment(0xE1, b"Exif\0\0MM\0*")
    with pytest.raises(MalformedRequest, match="unknown kind 0xf0"):
        outline_jpeg(plain[:2] + segment(0xF0, exif) + plain[2:])


@pytest.mark.parametrize(
    ("format_", "picture"),
    [
        ("PNG", {"save_all": True, "append_images": [Image.new("RGB", (7, 5), "red")]}),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (7, 5), "red")]}),
    ],
)
def test_what_moves_is_refused(format_, picture):
    with pytest.raises(UnsupportedMediaType, match="animated; send a still picture"):
        READERS[format_](saved(format_, **picture))


def test_parts_are_counted():
    jpeg = saved("JPEG")
    texts = [(b"zTXt", b"key\0\0" + zlib.compress(b"text"))]
    scan = jpeg[jpeg.find(b"\xff\xda") : -2]
    outline_png(png(*texts * MAX_TEXTS))
    outline_jpeg(jpeg[:-2] + scan * (MAX_SCANS - 1) + jpeg[-2:])
    for reader, content in (
        (outline_png, png(*texts * (MAX_TEXTS + 1))),
        (outline_png, png(*[(b"prVt", b"")] * MAX_PARTS)),
        (outline_png, png(*[(b"IDAT", b"1")] * MAX_PARTS)),
        (outline_jpeg, jpeg[:2] + segment(0xFE, b"") * MAX_PARTS + jpeg[2:]),
        (outline_jpeg, jpeg[:-2] + scan * MAX_SCANS + jpeg[-2:]),
        (outline_webp, webp(*[(b"UNKN", b"")] * (MAX_PARTS + 1))),
    ):
        with pytest.raises(MalformedRequest, match=r"has more than 1000 (chunks|segments)"):
            reader(content)


def test_a_webp_has_one_size():
    small, large = b"\x2f" + struct.pack("<I", 6 | 4 << 14), b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    for chunks in ([], [(b"VP8L", small), (b"VP8L", large)]):
        with pytest.raises(MalformedRequest, match=r"gives \d sizes"):
            outline_webp(webp(*chunks))
    assert outline_webp(webp((b"VP8L", large)))[:2] == (16384, 16384)
    assert outline_webp(webp((b"VP8X", bytes(4) + b"\xff" * 6)))[:2] == (2**24, 2**24)
