import io
import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.uploads import READERS

ASK = {"model": "digits", "seed": 8, "class": "one", "truncation": 0.9}


def png(pixels, text=None):
    """A PNG of our own making, with `text` where a sample's says what made it."""
    info = PngInfo()
    if text is not None:
        info.add_itxt("ganery", text)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def verdict(client, content):
    response = client.post("/verify", content=content)
    assert response.status_code == 200
    return response.json()


@pytest.fixture
def sample(shared):
    """The pixels of a sample, and what its file says."""
    picture = Image.open(io.BytesIO(shared.post("/generate", json=ASK).content))
    return np.asarray(picture), picture.text["ganery"]


@pytest.mark.parametrize("name", READERS)
def test_the_very_file_is_recognised(shared, name):
    answer = shared.post("/generate", json={**ASK, "format": name})
    told = verdict(shared, answer.content)
    assert (told["made_here"], told["match"], told["largest_difference"]) == (True, "bytes", 0)
    assert told["sample"]["id"] == answer.headers["x-sample-id"]


def test_a_bundle_under_two_names_recognises_what_it_made_under_each(make_bundle, serve):
    for name in ("one", "two"):
        make_bundle(name)
    with serve() as client:
        for name in ("one", "two"):
            told = verdict(client, client.post("/generate", json={"model": name, "seed": 1}).content)
            assert (told["match"], told["sample"]["model"]) == ("bytes", name)


@pytest.mark.parametrize(
    ("change", "made_here", "match"), [(0, True, "pixels"), (1, True, "near"), (3, False, "different")]
)
def test_its_pixels_are_compared(shared, sample, change, made_here, match):
    pixels, text = sample
    changed = pixels.copy()
    changed[2, 3] = changed[2, 3] + change if changed[2, 3] < 128 else changed[2, 3] - change
    told = verdict(shared, png(changed, text))
    assert (told["made_here"], told["match"], told["largest_difference"]) == (made_here, match, change)
    assert told["mean_difference"] == pytest.approx(change / 64)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_grey_picture_that_an_editor_has_stored_in_colour_is_the_same(shared, sample, mode):
    pixels, text = sample
    told = verdict(shared, png(np.asarray(Image.fromarray(pixels).convert(mode).convert("RGB")), text))
    assert (told["made_here"], told["match"]) == (True, "pixels")
    coloured = np.stack([pixels, pixels, 255 - pixels], axis=-1)
    assert verdict(shared, png(coloured, text))["match"] == "different"


def test_of_what_a_file_says_its_id_alone_is_believed(shared, sample):
    pixels, text = sample
    forged = {**json.loads(text), "seed": 999, "class": "two", "note": "x" * 1000}
    told = verdict(shared, png(pixels, json.dumps(forged)))
    assert (told["match"], told["sample"]) == ("pixels", json.loads(text))
    assert told["detail"].endswith("contradicts its id: seed, class")


@pytest.mark.parametrize(
    "ask", [("/sample", {"count": 2}), ("/sample", {"count": 3000}), ("/interpolate", {"from": 1, "to": 2})]
)
def test_what_shows_several_samples_is_told_so(shared, ask):
    path, members = ask
    answer = shared.post(path, json={"model": "plain", **members}, headers={"Accept": "image/png"})
    told = verdict(shared, answer.content)
    assert "several samples" in told["detail"]
    assert (told["sample"] is None) == (members.get("count") == 3000)


def test_another_size_is_different_and_nothing_is_computed_for_it(shared, sample):
    def computed():
        return [line for line in shared.get("/metrics").text.splitlines() if line.startswith("ganery_pictures_total")]

    before = computed()
    told = verdict(shared, png(sample[0][:4], sample[1]))
    assert (told["match"], told["detail"]) == ("different", "the sample is 8 x 8 x 1, this is 4 x 8 x 1")
    assert computed() == before


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no JSON",
        "[]",
        "{}",
        '{"id": 5}',
        '{"id": "g1.x"}',
        '{"id": "g1.0000000000000000.1.-.1000"}',
        '{"id": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"id": "g1.x", "x": NaN}',
        '{"id": "g1.x", "x": ' + "9" * 5000 + "}",
        '{"id": "g1.x", "x": ' + "[" * 190 + "]" * 190 + "}",
        '{"id": "g1.x", "x": ' + "[" * 900 + "]" * 900 + "}",
        "[" * 60_000,
    ],
)
def test_what_says_nothing_that_can_be_made_again_is_unknown(shared, sample, text):
    told = verdict(shared, png(sample[0], text))
    assert (told["made_here"], told["match"]) == (False, "unknown")


@pytest.mark.parametrize("member", ["1.3.900", "1.-.900", "1.1.1001", "01.1.900"])
def test_an_id_that_the_bundle_cannot_make_is_unknown(shared, sample, member):
    digest = json.loads(sample[1])["id"].split(".")[1]
    told = verdict(shared, png(sample[0], json.dumps({"id": f"g1.{digest}.{member}"})))
    assert told["match"] == "unknown"


@pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"GIF89a", 415), (b"\x89PNG\r\n\x1a\n", 400)])
def test_what_is_no_picture_is_refused(shared, content, status):
    assert shared.post("/verify", content=content).status_code == status
