import io
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from service.errors import GaneryError, MalformedRequest, TooLarge, UnsupportedMediaType
from service.formats import FORMATS
from service.uploads import MAX_METADATA, READERS, Upload, read_picture

MEGAPIXEL = 1_000_000
PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(picture, format_="PNG", **settings):
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, format_, **settings)
    return stream.getvalue()


def png(width, height, depth, colour, rows, *chunks):
    """A PNG as it is on the wire; `rows` without their filter bytes."""
    head = (b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    filtered = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [head, *chunks, (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    )


def read(content, max_pixels=MEGAPIXEL):
    return read_picture(content, max_pixels=max_pixels)


def orientation(value, order=">"):
    mark = {">": b"MM\0*", "<": b"II*\0"}[order]
    return b"Exif\0\0" + mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


@pytest.mark.parametrize(
    ("format_", "saved_as"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})]
)
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1, 3), (300, 1, 3)])
def test_a_picture_comes_back(format_, saved_as, shape):
    pixels = np.full(shape, (200, 100, 50), np.uint8)
    upload = read(saved(pixels, format_, **saved_as))
    assert upload.format == format_.lower()
    assert upload.pixels.shape == shape
    assert upload.pixels.dtype == np.uint8
    assert np.abs(upload.pixels.astype(int) - pixels).max() <= (2 if format_ == "JPEG" else 0)
    assert upload.metadata is None


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_every_kind(progressive):
    smooth = np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None], (48, 40, 3))
    expected = np.asarray(Image.open(io.BytesIO(saved(smooth, "JPEG"))))
    assert np.array_equal(read(saved(smooth, "JPEG", progressive=progressive)).pixels, expected)
    assert read(saved(Image.new("L", (9, 4), 77), "JPEG", progressive=progressive)).pixels.shape == (4, 9, 1)
    cmyk = Image.new("CMYK", (9, 4), (0, 255, 255, 0))  # full magenta and yellow is red
    assert np.abs(read(saved(cmyk, "JPEG", progressive=progressive)).pixels - (255, 0, 0)).max() <= 3


def test_grey_stays_one_channel():
    grey = PICTURE[:, :, 0]
    assert np.array_equal(read(saved(grey)).pixels, grey[:, :, None])
    bits = Image.fromarray(grey > 127)
    assert np.array_equal(read(saved(bits)).pixels[:, :, 0], (grey > 127) * np.uint8(255))


def test_transparency_is_composed_on_white():
    alpha = np.array([[0, 51, 128, 255]], np.uint8)
    expected = np.rint(alpha / 255 * 100 + (255 - alpha.astype(int)))
    rgba = np.dstack([np.full((1, 4, 3), 100, np.uint8), alpha])
    for content in (saved(rgba), saved(rgba, "WEBP", lossless=True, exact=True)):
        assert np.array_equal(read(content).pixels, np.dstack([expected] * 3))
    grey = Image.merge("LA", [Image.new("L", (4, 1), 100), Image.fromarray(alpha)])
    assert np.array_equal(read(saved(grey)).pixels, expected[:, :, None])


def test_one_colour_can_be_transparent():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    assert read(saved(palette)).pixels.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert read(saved(palette, transparency=0)).pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]
    half = saved(palette, transparency=bytes([255, 128]))
    assert read(half).pixels.tolist() == [[[10, 20, 30], [147, 152, 157]]]
    assert read(png(2, 1, 8, 0, [bytes([7, 8])], (b"tRNS", b"\0\7"))).pixels.tolist() == [[[255], [8]]]
    colours = png(2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], (b"tRNS", bytes([0, 1, 0, 2, 0, 3])))
    assert read(colours).pixels.tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_sixteen_bits_keep_their_upper_eight():
    values = struct.pack(">3H", 0x0000, 0x12FF, 0xFFFF)
    assert read(png(3, 1, 16, 0, [values])).pixels.tolist() == [[[0], [0x12], [255]]]
    assert read(png(3, 1, 16, 0, [values], (b"tRNS", b"\x12\xff"))).pixels.tolist() == [[[0], [255], [255]]]
    assert read(png(1, 1, 16, 2, [values])).pixels.tolist() == [[[0, 0x12, 255]]]
    assert read(png(1, 1, 16, 6, [values + b"\xff\xff"])).pixels.tolist() == [[[0, 0x12, 255]]]


def test_transparency_is_composed_on_the_colour_that_is_asked_for():
    def on(background, content):
        return read_picture(content, max_pixels=MEGAPIXEL, background=background).pixels.tolist()

    red, grey = (255, 0, 0), (9, 9, 9)
    clear = saved(np.dstack([np.full((1, 1, 3), 100, np.uint8), np.zeros((1, 1), np.uint8)]))
    assert on(red, clear) == [[[255, 0, 0]]]
    grey_clear = saved(Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 0)]))
    assert (on(red, grey_clear), on(grey, grey_clear)) == ([[[255, 0, 0]]], [[[9]]])
    sixteen = png(2, 1, 16, 0, [struct.pack(">2H", 0x12FF, 0x3400)], (b"tRNS", b"\x12\xff"))
    assert (on(red, sixteen), on(grey, sixteen)) == ([[[255, 0, 0], [0x34] * 3]], [[[9], [0x34]]])
    assert on(red, saved(Image.new("L", (1, 1), 100))) == [[[100]]]


TURNED = {
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.transpose(1, 0, 2),
    6: PICTURE[::-1].transpose(1, 0, 2),
    7: PICTURE[::-1, ::-1].transpose(1, 0, 2),
    8: PICTURE[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("value", TURNED)
@pytest.mark.parametrize("order", "<>")
def test_orientation_is_obeyed(value, order):
    exif = orientation(value, order)
    for content in (saved(PICTURE, exif=exif), saved(PICTURE, "WEBP", lossless=True, exif=exif)):
        assert np.array_equal(read(content).pixels, TURNED[value])
    assert read(saved(PICTURE, "JPEG", exif=exif)).pixels.shape == TURNED[value].shape


@pytest.mark.parametrize(
    "exif",
    [
        orientation(0),
        orientation(9),
        orientation(6)[:-9],
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0nonsense",
        # 5,000 tags, each of which claims to be as long as the whole.
        b"Exif\0\0II*\0\x08\0\0\0\x88\x13"
        + b"".join(struct.pack("<HHII", tag, 7, 60_000, 8) for tag in range(1000, 6000)),
    ],
    ids=lambda exif: f"{len(exif)} bytes",
)
@pytest.mark.parametrize("format_", [reader.decoder.format for reader in READERS.values()])
def test_a_picture_with_wrong_exif_is_a_picture(format_, exif):
    """And nobody is warned of it: a warning for each tag would let strangers write the log."""
    assert read(saved(PICTURE, format_, exif=exif)).pixels.shape == PICTURE.shape


@pytest.mark.parametrize("name", READERS)
def test_what_we_made_says_so(digits_bundle, name):
    sample = digits_bundle.sample(seed=7, class_="two")
    upload = read(FORMATS[name].encode(digits_bundle.picture(sample), sample))
    assert upload.format == name
    assert upload.metadata in (sample.to_json(), sample.to_xmp().decode())


def test_the_chunk_goes_before_xmp_wherever_it_stands():
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    assert read(saved(PICTURE, pnginfo=info)).metadata == "<x:xmpmeta/>"
    info.add_itxt("ganery", "né", zip=True)
    assert read(saved(PICTURE, pnginfo=info)).metadata == "né"
    late = PngInfo()
    late.add(b"iTXt", b"ganery\0\0\0\0\0late", after_idat=True)
    assert read(saved(PICTURE, pnginfo=late)).metadata == "late"


@pytest.mark.parametrize("text", ["x" * (MAX_METADATA + 1), ""])
def test_no_metadata_is_better_than_too_much(text):
    info = PngInfo()
    info.add_itxt("ganery", text, zip=True)
    assert read(saved(PICTURE, pnginfo=info)).metadata is None
    assert read(saved(PICTURE, "WEBP", xmp=b"\xff")).metadata is None


@pytest.mark.parametrize("key", ["xmp", "transparency", "icc_profile", "dpi", "gamma", "exif"])
def test_a_text_may_be_called_what_it_likes(key):
    info = PngInfo()
    info.add_text(key, "hello")
    assert read(saved(PICTURE, pnginfo=info)).pixels.shape == PICTURE.shape


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_text_that_swells_is_refused(chunk):
    swollen = b"key\0\0" + zlib.compress(bytes(2**20 + 1))
    with pytest.raises(MalformedRequest, match="Decompressed data too large"):
        read(png(1, 1, 8, 0, [b"\0"], (chunk, swollen)))


@pytest.mark.parametrize(
    "content",
    [
        saved(PICTURE, "GIF"),
        saved(PICTURE, "BMP"),
        saved(PICTURE, "TIFF"),
        saved(PICTURE, "ICO"),
        saved(PICTURE, "PDF"),
        saved(PICTURE, "EPS"),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\4\0\0\0WAVE",
        b"\x89PNG\r\n",
        b" " + saved(PICTURE),
        b"https://example.org/picture.png",
        b"\0",
    ],
    ids=lambda content: repr(content[:8]),
)
def test_other_formats_are_refused(content):
    with pytest.raises(UnsupportedMediaType, match="send a PNG, JPEG or WebP picture"):
        read(content)


def test_nothing_is_no_picture():
    with pytest.raises(MalformedRequest, match="the file is empty"):
        read(b"")


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_animations_are_refused(format_):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    with pytest.raises(UnsupportedMediaType, match="animated; send a still picture"):
        read(saved(frames[0], format_, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_half_a_picture_is_refused(format_):
    whole = saved(PICTURE, format_)
    for length in range(12, len(whole)):
        with pytest.raises(MalformedRequest, match=r"cut short|broken|does not begin with IHDR"):
            read(whole[:length])


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_polyglot_is_refused(format_):
    with pytest.raises(MalformedRequest, match="bytes follow the end"):
        read(saved(PICTURE, format_) + b"PK\3\4 and a whole archive")


def test_rows_that_a_whole_file_lacks_are_black():
    """Pillow's answer to a stream that ends in order, and too early; it is not undefined memory."""
    assert read(png(2, 2, 8, 0, [b"\7\7"])).pixels.tolist() == [[[7], [7]], [[0], [0]]]


def test_pixels_that_are_wrong_are_refused():
    whole = bytearray(saved(PICTURE))
    whole[whole.find(b"IDAT") + 8] ^= 1
    with pytest.raises(MalformedRequest, match="the png file is broken"):
        read(bytes(whole))
    for width, height in ((0, 5), (5, 0)):
        with pytest.raises(MalformedRequest, match="the png file is broken"):
            read(png(width, height, 8, 0, []))


def test_a_second_size_is_refused():
    second = (b"IHDR", struct.pack(">2I5B", 9000, 9000, 8, 0, 0, 0, 0))
    with pytest.raises(MalformedRequest, match="gives two sizes"):
        read(png(1, 1, 8, 0, [b"\0"], second))


def enlarged(format_):
    """A small file whose header claims 10,000 x 10,000 pixels."""
    if format_ == "PNG":
        return png(10_000, 10_000, 8, 0, [])
    if format_ == "JPEG":
        content = bytearray(saved(PICTURE, "JPEG"))
        struct.pack_into(">2H", content, content.find(b"\xff\xc0") + 5, 10_000, 10_000)
        return bytes(content)
    stream = b"VP8L" + struct.pack("<IBI", 5, 0x2F, 9_999 | 9_999 << 14) + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(stream)) + b"WEBP" + stream


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_a_bomb_allocates_nothing(format_):
    content = enlarged(format_)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="is 10000 x 10000; at most 1000000 pixels are taken: send a smaller one"):
            read(content)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_limit_is_taken():
    assert read(saved(PICTURE), max_pixels=35).pixels.shape == PICTURE.shape
    with pytest.raises(TooLarge):
        read(saved(PICTURE), max_pixels=34)


def test_threads_do_not_disturb_each_other():
    pictures = [np.full((32 + i, 32, 3), i, np.uint8) for i in range(24)]
    files = [saved(p, "WEBP" if i % 2 else "PNG", lossless=True) for i, p in enumerate(pictures)]
    bombs = [enlarged(format_) for format_ in ("PNG", "JPEG", "WEBP")] * 8

    def outcome(content):
        try:
            return read(content)
        except TooLarge as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            outcomes = list(pool.map(outcome, [content for pair in zip(files, bombs, strict=True) for content in pair]))
            assert all(np.array_equal(o.pixels, p) for o, p in zip(outcomes[::2], pictures, strict=True))
            assert all(isinstance(o, TooLarge) for o in outcomes[1::2])


def seeds():
    noisy = PngInfo()
    noisy.add_itxt("ganery", "{}")
    noisy.add_text("key", "value", zip=True)
    palette = Image.fromarray(PICTURE).quantize(4)
    yield saved(PICTURE, pnginfo=noisy, exif=orientation(6), icc_profile=b"profile")
    yield saved(palette, transparency=bytes([0, 128]))
    yield saved(PICTURE, "JPEG", exif=orientation(6), xmp=b"<x/>", icc_profile=b"profile")
    yield saved(PICTURE, "JPEG", progressive=True)
    yield saved(Image.new("CMYK", (7, 5)), "JPEG")
    yield saved(PICTURE, "WEBP", exif=orientation(6), xmp=b"<x/>")
    yield saved(PICTURE, "WEBP", lossless=True)
    yield png(3, 2, 16, 4, [bytes(range(12))] * 2, (b"eXIf", orientation(8)[6:]))
    yield png(2, 1, 16, 2, [bytes(range(12))], (b"tRNS", bytes(range(6))))


@st.composite
def mutated(draw):
    """A picture with a few bytes changed, taken out or put in."""
    content = bytearray(draw(st.sampled_from(list(seeds()))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    if content.startswith(b"\x89PNG") and draw(st.booleans()):
        content = with_right_checksums(content)
    return bytes(content)


def with_right_checksums(content):
    """Else nearly every change to a PNG ends at the first chunk."""
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return content


@settings(max_examples=600, deadline=1000)
@given(
    st.one_of(
        mutated(),
        st.binary(max_size=200),
        st.sampled_from([c[:16] for c in seeds()]).flatmap(
            lambda head: st.binary(max_size=200).map(lambda tail: head + tail)
        ),
    )
)
def test_any_bytes_are_a_picture_or_a_problem(content):
    try:
        outcome: Upload | GaneryError = read_picture(content, max_pixels=10_000)
    except GaneryError as problem:
        outcome = problem
    if isinstance(outcome, Upload):
        height, width, channels = outcome.pixels.shape
        assert 0 < height * width <= 10_000
        assert channels in (1, 3)
    else:
        assert int(outcome.status) in (400, 413, 415)
        assert len(outcome.detail) < 300


def test_pillow_has_what_we_ask_for():
    assert features.check("webp")
    assert features.check("jpg")
