import io
import json
import xml.etree.ElementTree as ET
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from service.animations import ANIMATIONS
from service.archives import contact_sheet
from service.interpolation import Interpolation

MOVING = ["gif", "webp"]


def random_frames(count, channels):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 12, channels), dtype=np.uint8)


def way_of(frames):
    """From one sample to another, in so many frames."""
    points = [SimpleNamespace(id="g1.x"), SimpleNamespace(id="g1.y")]
    return Interpolation(None, points, steps=max(1, len(frames) - 1), loop=False)


def encoded(name, frames, milliseconds=80):
    """The file that a route makes of frames, which come to it in two pieces."""
    kind, way, half = ANIMATIONS[name], way_of(frames), len(frames) // 2
    parts = [piece for piece in (range(half), range(half, len(frames))) if piece]
    pieces = [kind.packing(way, part)(frames[part.start : part.stop]) for part in parts]
    return b"".join(kind.write(pieces, way, milliseconds))


def shown(name, frames, milliseconds=80):
    """What a viewer shows: each picture in RGB, and for how long."""
    picture = Image.open(io.BytesIO(encoded(name, frames, milliseconds)))
    for index in range(getattr(picture, "n_frames", 1)):
        picture.seek(index)
        picture.load()
        yield np.asarray(picture.convert("RGB")), picture.info.get("duration")


def rgb(frames):
    return np.broadcast_to(frames, (*frames.shape[:3], 3))


@pytest.mark.parametrize("name", ANIMATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_frames_are_the_same_bytes(name, channels):
    assert encoded(name, random_frames(5, channels)) == encoded(name, random_frames(5, channels))


@pytest.mark.parametrize(("name", "channels"), [("gif", 1), ("webp", 1), ("webp", 3)])
def test_every_frame_is_shown_exactly_and_for_its_time(name, channels):
    frames = random_frames(6, channels)
    pictures, times = zip(*shown(name, frames, milliseconds=130), strict=True)
    np.testing.assert_array_equal(np.stack(pictures), rgb(frames))
    assert set(times) == {130}


def test_a_gif_tells_times_in_hundredths():
    assert {time for _, time in shown("gif", random_frames(3, 1), milliseconds=29)} == {30}


def test_a_gif_of_few_colours_is_exact():
    frames = random_frames(4, 3) // 128 * 255
    pictures, _ = zip(*shown("gif", frames), strict=True)
    np.testing.assert_array_equal(np.stack(pictures), frames)


@pytest.mark.parametrize("name", MOVING)
def test_it_repeats_for_ever(name):
    picture = Image.open(io.BytesIO(encoded(name, random_frames(3, 1))))
    assert picture.info["loop"] == 0
    assert picture.get_format_mimetype() == ANIMATIONS[name].media_type


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_that_are_the_same_are_one_that_lasts(name, channels):
    frames = random_frames(3, channels)[[0, 0, 1, 1, 1, 2, 0]]
    assert [time for _, time in shown(name, frames, 100)] == [200, 300, 100, 100]


@pytest.mark.parametrize("name", MOVING)
def test_a_picture_that_never_changes_is_no_failure(name):
    ((picture, _),) = shown(name, random_frames(1, 1)[[0] * 300], milliseconds=10_000)
    np.testing.assert_array_equal(picture, rgb(random_frames(1, 1))[0])


def test_a_gif_shows_one_frame_for_as_long_as_it_can_tell():
    assert [time for _, time in shown("gif", random_frames(2, 1)[[0] * 100 + [1]], 10_000)] == [655_350, 10_000]


def test_a_sheet_is_one_picture():
    ((picture, _),) = shown("sheet", random_frames(5, 3))
    np.testing.assert_array_equal(picture, contact_sheet(random_frames(5, 3)))


def test_a_zip_holds_a_png_for_each_frame():
    frames = random_frames(5, 3)
    with zipfile.ZipFile(io.BytesIO(encoded("zip", frames))) as container:
        assert container.namelist() == [f"{index:04d}.png" for index in range(5)]
        files = [container.read(name) for name in container.namelist()]
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files]), frames)
    said = [json.loads(Image.open(io.BytesIO(file)).text["ganery"]) for file in files]
    assert said == [{"interpolation": ["g1.x", "g1.y"], "steps": 4, "step": index} for index in range(5)]


def test_names_in_a_zip_are_in_the_order_of_frames():
    frames = np.zeros((10_001, 1, 1, 1), np.uint8)
    with zipfile.ZipFile(io.BytesIO(encoded("zip", frames))) as container:
        assert container.namelist() == sorted(container.namelist())


def test_every_file_says_where_it_comes_from():
    def opened(name):
        return Image.open(io.BytesIO(encoded(name, random_frames(3, 1))))

    facts = {"interpolation": ["g1.x", "g1.y"], "steps": 2, "loop": False}
    assert json.loads(opened("gif").info["comment"]) == facts
    assert json.loads(opened("sheet").text["ganery"]) == facts
    xmp = opened("webp").info["xmp"]
    assert xmp == way_of(random_frames(3, 1)).origin.to_xmp()
    (description,) = ET.fromstring(xmp).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert json.loads(description.get("{urn:ganery:}sample")) == facts
