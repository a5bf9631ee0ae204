import contextlib
import io
import struct
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import GaneryError, InvalidValue, MalformedRequest, TooLarge, UnsupportedMediaType
from service.forms import BodyLimits, read_pictures, safe_names

LIMITS = BodyLimits(pictures=5, unpacked_bytes=1000)
FORM = "multipart/form-data; boundary=here"


def part(name, content=b"x", filename=None, *more):
    disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    head = "\r\n".join([f"Content-Disposition: {disposition}", *more])
    return b"--here\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts, end=b"--here--\r\n"):
    return read_pictures(b"".join(parts) + end, FORM, LIMITS)


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            # Of a fixed time: the tests' names come from these bytes, and are the same in every worker.
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def unzip(content, limits=LIMITS):
    return read_pictures(content, "application/zip", limits)


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "Image/WebP; q=1", "image/anything", "application/octet-stream", "",
     "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_one_picture_comes_as_it_is(content_type):
    brought = read_pictures(b"bytes", content_type, LIMITS)
    assert [picture.content for picture in brought.pictures] == [b"bytes"]
    assert not brought.several


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "multipart/mixed", "application/x-tar"])
def test_other_types_are_not_read(content_type):
    with pytest.raises(UnsupportedMediaType, match="multipart/form-data, or application/zip"):
        read_pictures(b"bytes", content_type, LIMITS)


def test_a_form_brings_pictures_and_fields():
    brought = form(part("seed", b"7"), part("image", b"a\r\n--her", "one.png"), part("model", "ä".encode()))
    assert [(picture.content, picture.name) for picture in brought.pictures] == [(b"a\r\n--her", "one.png")]
    assert (brought.fields, brought.several) == ({"seed": "7", "model": "ä"}, False)
    several = form(part("image", b"a", ""), part("image", b"", "two"))
    assert [picture.content for picture in several.pictures] == [b"a", b""]
    assert several.several


def test_encoded_parts_are_decoded():
    encoded = part("image", b"aGVsbG8=", "x", "Content-Transfer-Encoding: base64")
    assert form(encoded).pictures[0].content == b"hello"
    with pytest.raises(MalformedRequest, match="Transfer-Encoding"):
        form(part("image", b"x", "x", "Content-Transfer-Encoding: rot13"))


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], InvalidValue, "image is missing"),
        ([part("seed", b"1")], InvalidValue, "image is missing"),
        ([part("image", b"", "")], InvalidValue, "image is missing"),  # no file has been chosen
        ([part("image", b"text")], InvalidValue, "'image' is text; pictures come as files in 'image'"),
        ([part("file", b"x", "x.png")], InvalidValue, "'file' is a file"),
        ([part("image", b"", "x"), part("seed"), part("seed")], InvalidValue, "seed comes twice"),
        ([part("image", b"", "x")] * 6, TooLarge, "more than 5 pictures; send fewer"),
        ([part(f"f{i}") for i in range(17)], TooLarge, "more than 16 fields"),
        ([part("seed", b"1" * 1001)], TooLarge, "1000 bytes"),
        ([part("image", b"x", "x", *["X: y"] * 20)], MalformedRequest, "header count"),
        ([part("image", b"x", "x" * 5000)], MalformedRequest, "header size"),
        ([b"--here\r\nNo: name\r\n\r\nx\r\n"], MalformedRequest, "cannot be read"),
        ([b"--there\r\n\r\n"], MalformedRequest, "cannot be read|cut short"),
    ],
)
def test_forms_that_are_refused(parts, error, message, caplog):
    with pytest.raises(error, match=message):
        form(*parts)
    assert not caplog.records


def test_a_form_without_its_end_is_cut_short():
    with pytest.raises(MalformedRequest, match="its last boundary is missing"):
        form(part("image", b"half a pict", "x"), end=b"")


def test_a_form_needs_a_boundary(caplog):
    for content_type in ("multipart/form-data", "multipart/form-data; boundary="):
        with pytest.raises(MalformedRequest, match="without a boundary"):
            read_pictures(b"", content_type, LIMITS)
    with pytest.raises(MalformedRequest, match="Boundary length"):
        read_pictures(b"", f"multipart/form-data; boundary={'x' * 300}", LIMITS)
    assert not caplog.records


@pytest.mark.parametrize("fill", [b"\r", b"\r\n--her", b"\r\n--heretic", b"\r\n"])
def test_no_form_takes_long(fill):
    body = part("image", fill * (2**22 // len(fill)), "x") + b"--here--\r\n"
    began = time.process_time()
    read_pictures(body, FORM, LIMITS)
    assert time.process_time() - began < 2


def test_a_zip_brings_its_files_in_order():
    brought = unzip(zipped(("b/", b""), ("b/2.png", b"two"), ("1.png", b"one")))
    assert [(picture.name, picture.content) for picture in brought.pictures] == [("b/2.png", b"two"), ("1.png", b"one")]
    assert brought.several
    assert unzip(zipped(("1.png", b"one"), method=zipfile.ZIP_STORED)).several


def test_what_systems_put_beside_files_is_passed_over():
    others = ["__MACOSX/._1.png", ".DS_Store", "a/.DS_Store", "Thumbs.db", "a/desktop.ini", "__MACOSX/a/x.png"]
    assert len(unzip(zipped(*((name, b"") for name in others), ("a/1.png", b"one"))).pictures) == 1
    with pytest.raises(MalformedRequest, match="holds no picture"):
        unzip(zipped((".DS_Store", b"")))


def nameless():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open(zipfile.ZipInfo(""), "w") as member:
        member.write(b"one")
    return stream.getvalue()


def encrypted():
    content = bytearray(zipped(("1.png", b"one")))
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


def with_another_hash():
    content = bytearray(zipped(("1.png", b"one"), method=zipfile.ZIP_STORED))
    content[content.index(b"one")] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", MalformedRequest, "cannot be read"),
        (b"PK\3\4", MalformedRequest, "cannot be read"),
        (zipped(("1.png", b"one"))[:-30], MalformedRequest, "cannot be read"),
        (zipped(), MalformedRequest, "holds no picture"),
        (zipped(*((f"{i}.png", b"") for i in range(6))), TooLarge, "has 6 pictures; at most 5"),
        (zipped(*((f"{i}.png", b"") for i in range(21))), TooLarge, "more than 5 pictures; send fewer"),
        (zipped(("bomb.png", bytes(2**20))), TooLarge, "unpacks to more than 1000 bytes; send fewer"),
        (zipped(("1.png", bytes(600)), ("2.png", bytes(600))), TooLarge, "unpacks to more than 1000 bytes; send fewer"),
        (zipped(("1.png", b"one"), method=zipfile.ZIP_LZMA), MalformedRequest, "another method than deflate"),
        (nameless(), MalformedRequest, "cannot be read"),
        (encrypted(), MalformedRequest, "is encrypted"),
        (with_another_hash(), MalformedRequest, "Bad CRC"),
    ],
)
def test_zips_that_are_refused(content, error, message):
    with pytest.raises(error, match=message):
        unzip(content)


def test_a_zip_that_promises_too_little_is_not_believed():
    content = bytearray(zipped(("bomb.png", bytes(2**20))))
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = struct.pack("<I", 10)
    with pytest.raises((MalformedRequest, TooLarge)):
        unzip(bytes(content))


@given(st.integers(0, 200), st.integers(0, 4), st.binary(max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_damage_to_a_zip_has_an_answer(at, length, other):
    content = bytearray(zipped(("a/1.png", b"one"), ("2.png", b"two" * 20)))
    content[at : at + length] = other
    with contextlib.suppress(GaneryError):
        unzip(bytes(content))


def test_names_are_kept():
    assert safe_names(["cat.jpeg", "a/b c.png", "no suffix", "Ü-ñ.webp"], "png") == [
        "cat.png", "a/b c.png", "no suffix.png", "Ü-ñ.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("..\\..\\boot.ini", "boot"),
        ("C:\\a\\b.png", "C_/a/b"),
        ("a/./../b.png", "a/b"),
        ("con\0trol\n.png", "con_trol_"),
        ('"><script>.png', "___script_"),
        ("...", "00000000"),
        ("", "00000000"),
        ("a/", "00000000"),
        ("e\u0301.png", "é"),
        ("x" * 300 + ".png", "x" * 100),
        ("/".join("abcdefgh") + ".png", "d/e/f/g/h"),
        ("漢" * 90 + ".png", "漢" * 66),
    ],
)
def test_names_lead_nowhere(name, safe):
    assert safe_names([name], "png") == [f"{safe}.png"]


def test_many_pictures_of_one_name_take_no_longer_than_as_many_of_others():
    # With as many tries for each as there are before it, this would take minutes.
    assert safe_names(["A.png", "a.png"] * 20_000, "png")[-2:] == ["A-39999.png", "a-40000.png"]


@pytest.mark.parametrize("name", ["/__MACOSX/" * 6500 + "\n\n", "a" + "\u0315\u0316" * 16_000])
def test_no_name_takes_long(name):
    began = time.process_time()
    pictures = unzip(zipped((name, b"one"), ("2.png", b"two"))).pictures
    safe_names([name] * 10, "png")
    assert pictures[-1].content == b"two"
    assert time.process_time() - began < 2


def test_no_file_has_the_name_of_a_folder():
    assert safe_names(["q.jpg", "q.png/w.jpg", "Q.PNG/v.jpg"], "png") == ["q-2.png", "q.png/w.png", "Q.PNG/v.png"]


def test_no_name_comes_twice():
    assert safe_names(["a.png", "A.jpg", "a.webp", "a-2.png", "", ""], "png") == [
        "a.png", "A-2.png", "a-3.png", "a-2-2.png", "00000004.png", "00000005.png",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_names_become_safe_ones(names):
    safe = safe_names(names, "png")
    assert len({name.casefold() for name in safe}) == len(names)
    for name in safe:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        name.encode()
