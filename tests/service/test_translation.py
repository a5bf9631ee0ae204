"""Pictures through translators, asked over HTTP in this process."""

import hashlib
import html
import io
import json
import math
import re
import socket
import struct
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service import tiling
from service.batcher import Batcher
from service.errors import DeadlineExceeded
from service.formats import FORMATS
from service.forms import Picture
from service.latents import draw
from service.pace import Pace
from service.tasks.translate import MAX_BATCH_PIXELS
from service.translation import TimeLimit, Translation, letterboxed, translations
from service.turns import Turns

RANDOM = np.random.default_rng(5)
PHOTO = RANDOM.integers(0, 256, (70, 100, 3), np.uint8)
PNG = {"content-type": "image/png"}


def saved(picture, format_="PNG", **settings):
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, format_, **settings)
    return stream.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def zipped(**pictures):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in pictures.items():
            archive.writestr(name, content)
    return stream.getvalue()


def is_problem(response, status, text=""):
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code == status, response.text
    assert text in response.json()["detail"]
    return True


def translation_of(bundle, picture):
    return Translation.of(bundle, saved(picture), seed=None, file_format=FORMATS["png"], max_pixels=2**24)


@pytest.fixture(scope="module")
def ask(shared):
    """One picture; the answer."""

    def ask(content, model="any", headers=None, **query):
        return shared.post(
            "/translate", params={"model": model, **query}, content=content, headers={**PNG, **(headers or {})}
        )

    return ask


@pytest.fixture
def run(generator_of, fixed, any_size):
    """What a graph makes of one picture, without a server."""
    generators = {"fixed": generator_of(fixed), "any": generator_of(any_size)}

    def run(picture, model="any", seed=None):
        generator = generators[model]
        return generator.run(generator.task.feed(picture[None], [seed]))[0]

    return run


def test_the_answer_is_what_the_graph_makes(ask, run):
    picture = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
    response = ask(saved(picture), "fixed", seed=7)
    assert response.headers["content-type"] == "image/png"
    assert (response.headers["x-seed"], response.headers["x-model"]) == ("7", "fixed")
    assert response.headers["x-determinism"] == "exact; batch=free"
    assert "x-resized" not in response.headers
    for phase in ("decode", "queue", "compute", "encode", "total"):
        assert f"{phase};dur=" in response.headers["server-timing"]
    np.testing.assert_array_equal(pixels(response.content), run(picture, "fixed", 7))


def test_a_seed_is_drawn_and_told_or_not_taken(ask):
    content = saved(PHOTO)
    drawn = ask(content, "fixed")
    assert drawn.headers["x-seed"] != ask(content, "fixed").headers["x-seed"]
    assert drawn.content == ask(content, "fixed", seed=drawn.headers["x-seed"]).content
    assert ask(content, "fixed", seed=2**64 - 1).status_code == 200
    assert "x-seed" not in ask(content).headers
    refused = ask(content, "any", seed=1)
    assert is_problem(refused, 422, "model 'any' takes no seed")
    assert refused.json()["pointer"] == "/seed"
    # Several outputs of one input are several seeds.
    assert len({ask(content, "fixed", seed=seed).content for seed in range(5)}) == 5


def test_the_file_says_what_made_it_and_nothing_of_its_input(ask, shared):
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    info = PngInfo()
    info.add_text("Comment", "a secret name")
    content = saved(PHOTO, exif=exif, pnginfo=info, icc_profile=b"a secret screen", dpi=(30, 30))
    digest = shared.get("/models/fixed").json()["digest"]
    facts = {
        "model": "fixed",
        "version": "1",
        "digest": digest,
        "seed": 3,
        "input_sha256": hashlib.sha256(content).hexdigest(),
        "resized": "100x70 -> 8x8",
    }
    for format_ in ("png", "webp", "jpeg"):
        made = ask(content, "fixed", seed=3, format=format_)
        assert b"secret" not in made.content
        with Image.open(io.BytesIO(made.content)) as picture:
            assert set(picture.info) <= {"ganery", "XML:com.adobe.xmp", "xmp", "jfif", "jfif_version", "jfif_unit",
                                         "jfif_density", "loop", "background", "timestamp", "duration"}  # fmt: skip
            said = re.search(rb'ganery:sample="([^"]*)"', made.content)
        assert json.loads(html.unescape(said[1].decode())) == facts
        assert b"trainedAlgorithmicMedia" in made.content
    assert json.loads(Image.open(io.BytesIO(ask(content, "fixed", seed=3).content)).text["ganery"]) == facts
    verdict = shared.post("/verify", content=made.content).json()
    assert (verdict["match"], verdict["sample"]) == ("unknown", facts)
    assert "can only be made again from its input" in verdict["detail"]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 5), (64, 64), (70, 101), (273, 272), (550, 301)])
def test_any_size_comes_back_in_its_own(ask, size):
    picture = RANDOM.integers(0, 256, (*size, 3), np.uint8)
    response = ask(saved(picture))
    assert pixels(response.content).shape == (*size, 3)
    assert "x-resized" not in response.headers


def test_what_is_beyond_the_border_is_its_mirror_image(ask, run):
    picture = RANDOM.integers(0, 256, (6, 7, 3), np.uint8)
    extended = picture[[*range(6), 4, 3]][:, [*range(7), 5]]
    np.testing.assert_array_equal(pixels(ask(saved(picture)).content), run(extended)[:6, :7])
    single = np.full((1, 1, 3), (10, 20, 30), np.uint8)
    np.testing.assert_array_equal(pixels(ask(saved(single)).content), run(single.repeat(4, 0).repeat(4, 1))[:1, :1])


def test_tiles_show_no_seam(ask, run):
    photo = RANDOM.integers(0, 256, (700, 1000, 3), np.uint8)
    response = ask(saved(photo))
    assert "tiles;dur=" in response.headers["server-timing"]
    difference = np.abs(pixels(response.content).astype(int) - run(photo)).mean(2)
    assert difference.mean() <= 2
    columns = tiling.spans(1000, tiling.tile_side(7, 4), tiling.rounded_up(7, 4))
    borders = np.array([column.core_start for column in columns[1:]])
    assert len(borders) == 3
    at_borders = difference[:, np.concatenate([borders - 1, borders])].mean()
    assert at_borders <= difference.mean() + 1e-9


def test_without_a_margin_there_would_be_a_seam(make_bundle, translators, serve, run):
    """The test above can fail."""
    members = {**translators["any"], "input": {**translators["any"]["input"], "halo": 0}}
    make_bundle("blind", **members)
    photo = RANDOM.integers(0, 256, (256, 512, 3), np.uint8)
    with serve() as client:
        made = client.post("/translate?model=blind", content=saved(photo), headers=PNG)
    difference = np.abs(pixels(made.content).astype(int) - run(photo)).mean((0, 2))
    assert difference[255:257].min() > 20 * max(difference[:250].max(), 0.01)


def test_tiles_share_batches_and_few_are_in_memory(any_size, gate, listen):
    gate.opened.set()
    with listen(deadline_seconds=300) as server:
        server.lifecycle.catalog.bundles["any"].batcher.pace.batch_seconds = math.inf  # however busy this machine is
        gate.rows.clear()
        server.client.post("/translate", content=saved(np.zeros((1500, 1500, 3), np.uint8)), headers=PNG)
    assert sum(gate.rows) == 36
    assert len(gate.rows) < 36
    assert max(gate.rows) <= 2 * 2**20 // 272**2


def test_a_batch_takes_many_small_pictures_or_few_tiles(any_size, load):
    def rows(max_pixels, picture):
        batcher = Batcher(lambda works: None, turns=Turns(2), pace=Pace(max_pixels=max_pixels))
        one = translation_of(replace(load(any_size), batcher=batcher), picture)
        return batcher.rows_of(64 * 64), [work.rows for work in one.works()], [work.pixels for work in one.works()]

    large = np.zeros((700, 1000, 3), np.uint8)
    assert rows(50_000, large) == (12, [1] * 12, [272 * 272] * 12)
    assert rows(2**21, large) == (32, [6, 6], [6 * 272 * 272] * 2)
    assert rows(50_000, np.zeros((5, 6, 3), np.uint8)) == (12, [1], [8 * 8])  # what is computed, not what is kept


def test_a_picture_of_another_size_is_made_to_fit(ask, run):
    response = ask(saved(PHOTO), "fixed", seed=1)
    assert response.headers["x-resized"] == "100x70 -> 8x8"
    fitted = letterboxed(PHOTO, 8, 8, (255, 0, 0))
    assert (fitted[[0, -1]] == (255, 0, 0)).all()  # 100 x 70 is 8 x 6 here
    assert fitted[1:7].std() > 5
    np.testing.assert_array_equal(pixels(response.content), run(fitted, "fixed", 1))
    for size in [(1, 1), (1, 500), (500, 1)]:
        assert ask(saved(np.zeros((*size, 3), np.uint8)), "fixed").status_code == 200


def test_the_answer_has_the_size_of_the_output(make_bundle, translators, build_translator, serve):
    output = {"height": 24, "width": 24, "channels": 3}
    make_bundle("larger", **{**translators["fixed"], "graph": build_translator(target=24), "output": output})
    with serve() as client:
        response = client.post("/translate", content=saved(PHOTO), headers=PNG)
    assert pixels(response.content).shape == (24, 24, 3)
    assert response.headers["x-resized"] == "100x70 -> 8x8"


CLEAR = np.dstack([np.full((8, 8, 3), 40, np.uint8), np.repeat([[0], [255]], 4, 0).repeat(8, 1).astype(np.uint8)])
GREY = RANDOM.integers(0, 256, (8, 8), np.uint8)
RGB = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
PALETTE = Image.fromarray(RGB).quantize(16)
CMYK = Image.fromarray(RGB).convert("CMYK")


def png16(values):
    """Grey of 16 bits."""
    return saved(Image.fromarray(values.astype(np.uint16)))


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (saved(CLEAR), np.where(CLEAR[:, :, 3:] == 0, (255, 0, 0), CLEAR[:, :, :3]).astype(np.uint8)),
        (saved(GREY), np.dstack([GREY] * 3)),
        (saved(Image.fromarray(GREY > 99)), np.dstack([(GREY > 99) * np.uint8(255)] * 3)),
        (saved(PALETTE), np.asarray(PALETTE.convert("RGB"))),
        (png16(GREY.astype(np.uint16) * 256 + 77), np.dstack([GREY] * 3)),
        (saved(CMYK, "JPEG"), pixels(saved(CMYK, "JPEG"))),
        (saved(RGB, "JPEG"), pixels(saved(RGB, "JPEG"))),
        (saved(RGB, "WEBP", lossless=True), RGB),
        (saved(RGB, exif=struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, 0x0112, 3, 1, 6, 0, 0)), np.rot90(RGB, -1)),
    ],
    ids=["alpha on red", "grey", "bits", "palette", "16 bits", "CMYK", "jpeg", "webp", "orientation"],
)
def test_pictures_of_every_kind_are_seen_in_a_stated_way(ask, run, content, seen):
    response = ask(content, "fixed", seed=0)
    np.testing.assert_array_equal(pixels(response.content), run(np.ascontiguousarray(seen), "fixed", 0))


def test_a_grey_translator_sees_luma(make_bundle, serve):
    shape = ["N", "h", "w", 1]
    tensors = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("image", "pixels")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["pixels"])], "same", tensors[:1], tensors[1:])
    same = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    any_size = {"height": None, "width": None, "channels": 1}
    make_bundle("same", graph=same, task="translate", latent=None, input={**any_size, "halo": 0}, output=any_size)
    with serve() as client:
        for picture, seen in [(RGB, np.asarray(Image.fromarray(RGB).convert("L"))), (GREY, GREY)]:
            made = client.post("/translate", content=saved(picture), headers=PNG)
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(made.content))), seen)


ANIMATED = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"", 400, "the file is empty"),
        (b"x", 415, "begins with b'x'"),
        (b"PK\x03\x04", 415, "a zip of them as application/zip"),
        (saved(RGB)[:-20], 400, "cut short"),
        (saved(RGB, "JPEG")[:-20], 400, "cut short"),
        (saved(RGB, "WEBP")[:-20], 400, "cut short"),
        (saved(RGB)[:60] + b"\0" * 20 + saved(RGB)[80:], 400, "broken"),
        (saved(RGB, "GIF"), 415, "send a PNG, JPEG or WebP"),
        (saved(RGB, "BMP"), 415, "send a PNG, JPEG or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "send a PNG, JPEG or WebP"),
        (saved(ANIMATED[0], save_all=True, append_images=ANIMATED[1:]), 415, "animated"),
        (saved(ANIMATED[0], "WEBP", save_all=True, append_images=ANIMATED[1:]), 415, "animated"),
        (saved(Image.new("1", (4097, 4096))), 413, "4097 x 4096; at most 16777216 pixels"),
        (bytes(16 * 2**20 + 1), 413, "larger than 16777216 bytes"),
    ],
    ids=["empty", "a byte", "zip", "png cut", "jpeg cut", "webp cut", "png broken", "gif", "bmp", "svg", "apng",
         "moving webp", "too many pixels", "too many bytes"],
)  # fmt: skip
@pytest.mark.parametrize("model", ["fixed", "any"])
def test_what_is_no_picture_has_its_answer(ask, model, content, status, text):
    assert is_problem(ask(content, model), status, text)


def test_first_bytes_decide_not_what_it_is_called(ask, shared):
    jpeg = saved(RGB, "JPEG")
    expected = ask(jpeg, headers={"content-type": "image/jpeg"}).content
    assert ask(jpeg, headers={"content-type": "image/png"}).content == expected
    wrong = shared.post("/translate", params={"model": "any"}, files={"image": ("photo.png", jpeg, "image/webp")})
    assert wrong.content == expected


def test_tasks_do_not_mix(shared, ask):
    assert is_problem(ask(saved(RGB), "plain"), 409, "model 'plain' does 'generate'; asked for is 'translate'")
    for path, more in [("/generate", {}), ("/sample", {"count": 1}), ("/interpolate", {"from": 1, "to": 2})]:
        assert is_problem(shared.post(path, json={"model": "any", **more}), 409, "does 'translate'")
    assert is_problem(ask(saved(RGB), "nothing"), 404)
    digest = shared.get("/models/fixed").json()["digest"]
    assert is_problem(shared.get(f"/samples/g1.{digest[:16]}.1.-.1000"), 404)


def test_without_a_translator_it_says_so(serve, plain):
    with serve() as client:
        answer = client.post("/translate", content=saved(RGB), headers=PNG)
        assert is_problem(answer, 404, "no model that is served here does 'translate'")
    with serve(default_model="plain") as client:
        assert is_problem(client.post("/translate", content=saved(RGB), headers=PNG), 404)


def test_a_default_is_one_of_its_task(serve, plain, fixed, any_size):
    with serve(default_model="fixed") as client:
        assert client.get("/models").json()["defaults"] == {"generate": "plain", "translate": "fixed"}
        assert client.post("/generate", json={}).headers["x-model"] == "plain"
        assert client.post("/translate", content=saved(RGB), headers=PNG).headers["x-model"] == "fixed"


def test_cards_say_what_a_translator_takes(shared):
    card = shared.get("/models/any").json()
    assert (card["task"], card["seeds"], card["input"]["halo"]) == ("translate", 0, 7)
    assert (card["output"]["height"], card["truncation"], card["max_batch"]) == (None, False, 32)
    assert card["pictures_per_second"] is None
    assert card["megapixels_per_second"] > 0
    assert 32 * 8 * 8 <= card["max_batch_pixels"] <= MAX_BATCH_PIXELS
    fixed = shared.get("/models/fixed").json()
    assert fixed["max_batch_pixels"] == fixed["max_batch"] * 8 * 8
    assert fixed["pictures_per_second"] * 64 / 1e6 == pytest.approx(fixed["megapixels_per_second"], rel=0.2)
    assert shared.get("/models/fixed").json()["seeds"] == 2**64
    assert shared.get("/models/plain").json()["input"] is None
    assert shared.get("/models/any/samples.png").content == b"not looked at"


@pytest.mark.parametrize(
    ("query", "status", "pointer"),
    [
        ({"seed": "x"}, 422, "/seed"),
        ({"seed": "-1"}, 422, "/seed"),
        ({"seed": str(2**64)}, 422, "/seed"),
        ({"seed": "9" * 5000}, 422, "/seed"),
        ({"seed": "1.0"}, 422, "/seed"),
        ({"format": "gif"}, 422, "/format"),
        ({"picture": "zip"}, 422, "/picture"),
        ({"sed": "1"}, 422, "/sed"),
        ({"seed": ["1", "2"]}, 422, "/seed"),
    ],
)
def test_what_is_asked_wrongly_is_named(shared, query, status, pointer):
    response = shared.post("/translate", params={"model": "fixed", **query}, content=saved(RGB), headers=PNG)
    assert is_problem(response, status)
    assert response.json()["pointer"] == pointer


def test_the_format_is_negotiated(ask):
    content = saved(RGB)
    assert ask(content, headers={"accept": "image/webp"}).headers["content-type"] == "image/webp"
    assert ask(content, format="jpeg").headers["content-type"] == "image/jpeg"
    assert ask(content, picture="webp").headers["content-type"] == "image/webp"
    assert ask(content, seed="", format="").headers["content-type"] == "image/png"
    assert ask(content, headers={"accept": "application/zip"}).headers["content-type"] == "application/zip"
    assert ask(content, picture="webp", headers={"accept": "application/x-tar"}).content.count(b"WEBP") == 1
    assert is_problem(ask(content, headers={"accept": "text/html"}), 406)
    assert is_problem(ask(content, format="png", headers={"accept": "image/webp"}), 406)
    assert is_problem(ask(content, headers={"content-encoding": "gzip"}), 415, "Content-Encoding")
    assert is_problem(ask(content, headers={"content-type": "text/plain"}), 415, "Content-Type is text/plain")
    for format_ in ("zip", "tar"):
        assert ask(content, format=format_, picture="webp").headers["x-count"] == "1"


MANY = {f"{'ab'[i % 2]}/{i}.jpeg": saved(RANDOM.integers(0, 256, (5 + 60 * i, 9, 3), np.uint8)) for i in range(6)}


@pytest.mark.parametrize("model", ["fixed", "any"])
def test_many_come_as_they_would_alone(shared, ask, model):
    seed = {"seed": 4} if model == "fixed" else {}
    alone = {
        name.replace("jpeg", "webp"): ask(content, model, format="webp", **seed).content
        for name, content in MANY.items()
    }
    params = {"model": model, "picture": "webp", **seed}
    answer = shared.post(
        "/translate", params=params, content=zipped(**MANY), headers={"content-type": "application/zip"}
    )
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["x-count"] == "6"
    assert answer.headers["content-disposition"] == f'attachment; filename="{model}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == alone
        assert archive.namelist() == list(alone)
    files = [("image", (name, content, "image/png")) for name, content in MANY.items()]
    answer = shared.post("/translate", data={**params, "format": "tar"}, files=files)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert archive.getnames() == list(alone)
        assert {name: archive.extractfile(name).read() for name in archive.getnames()} == alone


def test_names_that_no_tar_of_old_knows_are_kept(shared):
    names = ["ñandú.png", "x" * 90 + "/" + "y" * 90 + ".png"]
    files = [("image", (name, saved(RGB))) for name in names]
    answer = shared.post("/translate", params={"model": "any", "format": "tar"}, files=files)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert archive.getnames() == names


def test_what_is_wrong_with_one_of_many_is_said_before_any_is_made(shared, gate):
    files = [("image", ("good.png", saved(RGB))), ("image", ("bad.png", saved(RGB)[:-9]))]
    answer = shared.post("/translate", params={"model": "any"}, files=files)
    assert is_problem(answer, 400, "picture 2 ('bad.png'), after 64 of 16777216 pixels: the png file is cut short")
    alone = zipped(**{"notes.txt": b"none"})
    answer = shared.post("/translate?model=any", content=alone, headers={"content-type": "application/zip"})
    assert is_problem(answer, 415, "picture 1 ('notes.txt'): the file begins with b'none'")
    assert not gate.rows
    files = [("image", ("good.png", saved(RGB)))] * 2
    answer = shared.post("/translate", params={"model": "any", "format": "webp"}, files=files)
    assert is_problem(answer, 422, "several pictures come in a container")
    assert answer.json()["choices"] == ["zip", "tar"]
    answer = shared.post("/translate", params={"model": "any"}, files=files, data={"model": "any"})
    assert is_problem(answer, 422, "model comes twice")


def test_how_much_one_request_brings_is_limited(serve, any_size):
    with serve(max_uploads=2, max_pixels=150, max_upload_bytes=5000) as client:

        def send(*contents):
            return client.post("/translate", files=[("image", ("x.png", content)) for content in contents])

        assert send(saved(RGB), saved(RGB)).status_code == 200
        assert is_problem(send(saved(RGB), saved(RGB), saved(RGB)), 413, "more than 2 pictures")
        assert is_problem(send(saved(RGB), saved(PHOTO[:10, :9])), 413, "at most 86 pixels are taken")
        narrow = saved(np.zeros((1, 60, 3), np.uint8))  # 4 x 60 as the model takes it
        assert is_problem(send(narrow), 413, "240 pixels as the model takes it; at most 150 are taken")
        assert is_problem(send(saved(RGB), narrow), 413, "240 pixels as the model takes it; at most 86")
        assert is_problem(send(bytes(5001)), 413, "larger than 5000 bytes")
        packed = zipped(**{"a.png": bytes(6000)})
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", bytes(6000))
        assert len(packed) > 5000 > len(stream.getvalue())
        response = client.post("/translate", content=stream.getvalue(), headers={"content-type": "application/zip"})
        assert is_problem(response, 413, "unpacks to more than 5000 bytes")


def test_same_input_and_seed_same_bytes_whatever_else_runs(shared, ask):
    """Alone, in company, in containers, beside other routes."""
    small = [saved(RANDOM.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(12)]
    large = saved(RANDOM.integers(0, 256, (400, 300, 3), np.uint8))
    alone = {(content, seed): ask(content, "fixed", seed=seed).content for content in small for seed in (1, 2)}
    whole = ask(large).content

    def again(item):
        (content, seed), expected = item
        assert ask(content, "fixed", seed=seed).content == expected

    def others(number):
        shared.post("/sample", json={"model": "digits", "count": 200, "format": "npz"})
        assert ask(large).content == whole
        packed = zipped(**{f"{index}.png": content for index, content in enumerate(small)})
        answer = shared.post(
            "/translate?model=fixed&seed=1", content=packed, headers={"content-type": "application/zip"}
        )
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert [archive.read(name) for name in archive.namelist()] == [alone[content, 1] for content in small]

    with ThreadPoolExecutor(12) as threads:
        results = [threads.submit(again, item) for item in [*alone.items()] * 3]
        results += [threads.submit(others, number) for number in range(4)]
        for result in results:
            result.result()


def test_pictures_wait_as_others_do(gate, listen, fixed, eventually):
    with listen(queue_rows=2, deadline_seconds=30) as server, ThreadPoolExecutor(8) as threads:
        runners = server.lifecycle.catalog.bundles["fixed"].batcher.runners

        def send(**headers):
            return server.client.post("/translate", content=saved(RGB), headers={**PNG, **headers})

        running = []
        for _ in range(runners):
            running.append(threads.submit(send))
            assert gate.reached.acquire(timeout=30)
        waiting = [threads.submit(send) for _ in range(2)]
        eventually(lambda: server.waiting == 2)
        refused = send()
        assert is_problem(refused, 429, "2 pictures are waiting")
        assert int(refused.headers["retry-after"]) >= 1
        gate.opened.set()
        assert {answer.result().status_code for answer in [*running, *waiting]} == {200}
    gate.opened.clear()


def test_what_cannot_be_made_in_time_is_refused_before_it_is_decoded(gate, listen, any_size):
    large = bytearray(saved(RANDOM.integers(0, 256, (700, 1000, 3), np.uint8)))
    large[-1000:-500] = bytes(500)  # no decoder gets so far
    with listen(deadline_seconds=300) as server:
        batcher = server.lifecycle.catalog.bundles["any"].batcher
        batcher.pace.seconds_per_pixel = batcher.pace.at_best = 1e-4 * batcher.runners
        gate.opened.set()
        gate.rows.clear()

        def ask(deadline, **files):
            pictures = [("image", (name, bytes(content))) for name, content in files.items()]
            return server.client.post("/translate", files=pictures, headers={"x-deadline-ms": str(deadline)})

        # 12 tiles of 272 x 272 are 88.8 seconds; 40 of the 88.8 are about 315,000 of the 700,000 pixels.
        late = ask(40_000, large=large)
        assert is_problem(late, 413, "the picture is 1000 x 700, 88.8 seconds of work")
        assert "X-Deadline-Ms may be at most 300000" in late.json()["detail"]
        assert 200_000 < int(re.search(r"about (\d+) pixels fit", late.json()["detail"])[1]) <= 315_400
        assert gate.rows == []
        assert is_problem(ask(200_000, large=large), 400, "broken")
        small = saved(np.zeros((272, 272, 3), np.uint8))
        assert is_problem(ask(40_000, small=small, large=large), 400, "picture 2")
        assert ask(40_000, small=small).status_code == 200


def test_what_the_machine_could_make_while_it_was_quick_is_tried(gate, listen, any_size):
    """Or else a picture of many tiles would be refused until smaller ones had shown how quick it is now."""
    with listen() as server:
        server.lifecycle.catalog.bundles["any"].batcher.pace.seconds_per_pixel = 1.0
        gate.opened.set()
        content = saved(RANDOM.integers(0, 256, (300, 300, 3), np.uint8))
        assert server.client.post("/translate", content=content, headers=PNG).status_code == 200


def test_what_clients_brought_who_have_left_is_not_read(listen, any_size, eventually):
    content, free = saved(PHOTO), threading.Event()
    head = f"HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    with listen() as server:
        decoding = server.lifecycle.decoding
        held = [decoding._threads.submit(free.wait, 60) for _ in range(decoding._count)]
        for path in ("/translate", "/verify"):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(f"POST {path} ".encode() + head + content)
                eventually(lambda: decoding._under_way == 1)
            eventually(lambda path=path: server.count("ganery_requests_total", route=path, status="499", model="") == 1)
            assert decoding._under_way == 0
        free.set()
        assert all(each.result() for each in held)


def test_reading_ends_at_the_deadline(any_size, load):
    bundle = load(any_size)
    picture = Picture(saved(PHOTO), "photo.png")
    settings = {"seed": None, "file_format": FORMATS["png"], "max_pixels": 2**24}
    in_time, late = (TimeLimit(monotonic() + seconds, 30) for seconds in (20, 0))
    assert len(translations(bundle, [picture], time_limit=in_time, **settings)) == 1
    with pytest.raises(DeadlineExceeded, match="while the pictures were read"):
        translations(bundle, [picture], time_limit=late, **settings)


def test_a_deadline_holds_for_tiles_too(gate, listen, any_size, eventually):
    large = saved(np.zeros((900, 900, 3), np.uint8))
    with listen() as server:
        server.lifecycle.catalog.bundles["any"].batcher.pace.seconds_per_pixel = 1e-9  # however busy this machine is
        late = server.client.post("/translate", content=large, headers={**PNG, "x-deadline-ms": "300"})
        assert is_problem(late, 504)
        eventually(lambda: server.waiting == 0)
        gate.opened.set()


def test_what_a_client_that_left_asked_for_is_not_computed(gate, listen, any_size, eventually):
    large = saved(np.zeros((3000, 3000, 3), np.uint8))
    with listen() as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        head = f"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(large)}\r\n\r\n"
        connection.sendall(head.encode() + large)
        assert gate.reached.acquire(timeout=30)
        connection.close()
        eventually(lambda: server.waiting == 0)
        gate.opened.set()
        eventually(lambda: server.count("ganery_requests_total", route="/translate", status="499", model="any") == 1)
        assert sum(gate.rows) < 144


def test_the_event_loop_goes_on_while_pictures_are_decoded(listen, any_size):
    noise = saved(RANDOM.integers(0, 256, (2000, 2000, 3), np.uint8))
    with listen(deadline_seconds=300) as server, ThreadPoolExecutor(2) as threads:
        sent = threads.submit(server.client.post, "/translate?model=any", content=noise, headers=PNG)
        slowest = 0.0
        while not sent.done():
            slowest = max(slowest, server.client.get("/livez").elapsed.total_seconds())
        assert sent.result().status_code == 200
        took = sent.result().elapsed.total_seconds()
    assert slowest < max(0.5, took / 2)


def test_z_is_that_of_the_seed(ask, run, fixed, generator_of):
    generator = generator_of(fixed)
    feed = {"image": RGB[None], "z": draw([2**63], 4)}
    np.testing.assert_array_equal(pixels(ask(saved(RGB), "fixed", seed=2**63).content), generator.run(feed)[0])
