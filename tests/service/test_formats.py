import io
import json

import numpy as np
import pytest
from PIL import Image

from service.errors import NotAcceptable
from service.formats import FORMATS, choose
from service.sample import Sample

SAMPLE = Sample("digits", "1", "ab" * 32, 42, 2, "two", 0.7)
LOSSLESS = ["png", "webp"]


def pixels(channels):
    return np.random.default_rng(0).integers(0, 256, (16, 12, channels), dtype=np.uint8)


def opened(name, channels=3):
    return Image.open(io.BytesIO(FORMATS[name].encode(pixels(channels), SAMPLE)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_makes_what_it_says(name, channels):
    picture = opened(name, channels)
    assert picture.get_format_mimetype() == FORMATS[name].media_type
    assert picture.size == (12, 16)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_the_pixels_back(name, channels):
    picture = opened(name, channels).convert("L" if channels == 1 else "RGB")
    np.testing.assert_array_equal(np.asarray(picture).reshape(16, 12, channels), pixels(channels))


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_sample_is_the_same_bytes(name):
    encode = FORMATS[name].encode
    assert encode(pixels(3), SAMPLE) == encode(pixels(3), SAMPLE)


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_says_what_made_it(name):
    assert opened(name).info["xmp"].rstrip(b"\0") == SAMPLE.to_xmp()


def test_png_says_it_in_plain_text_too():
    assert json.loads(opened("png").text["ganery"])["id"] == SAMPLE.id


@pytest.mark.parametrize(
    ("asked", "accept", "expected"),
    [
        (None, "*/*", "png"),
        (None, "image/*", "png"),
        (None, "image/webp", "webp"),
        (None, "image/jpeg;q=0.5, image/webp;q=0.4", "jpeg"),
        (None, "image/png;q=0, image/*", "webp"),
        (None, "text/html, */*;q=0.1", "png"),
        ("jpeg", "*/*", "jpeg"),
        ("webp", "image/png, image/webp;q=0.1", "webp"),
    ],
)
def test_chooses(asked, accept, expected):
    assert choose(FORMATS, asked, accept) is FORMATS[expected]


@pytest.mark.parametrize(
    ("asked", "accept", "message"),
    [
        ("png", "image/webp", "format 'png' is image/png, which Accept: image/webp rules out"),
        ("png", "image/png;q=0, */*", "rules out"),
        (None, "text/html", "it makes image/png, image/webp, image/jpeg"),
        (None, "", "it makes"),
    ],
)
def test_refuses_to_guess(asked, accept, message):
    with pytest.raises(NotAcceptable, match=message):
        choose(FORMATS, asked, accept)
