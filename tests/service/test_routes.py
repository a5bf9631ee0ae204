"""The public routes, asked over HTTP in this process."""

import base64
import io
import json
import math
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service import __version__
from service.archives import ARCHIVES, contact_sheet
from service.cpus import available_cpus
from service.formats import ENCODERS, FORMATS
from service.manifest import GENERATOR_FILE
from service.uploads import either

RUNNERS = available_cpus()
DEADLINE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def client(serve, plain, digits):
    with serve() as client:
        yield client


@pytest.fixture(scope="module")
def strict(serve_models):
    """A server that allows little, for questions that it refuses."""
    with serve_models(max_count=100, max_pixels=4 * 64) as client:
        yield client


def is_problem(response, status):
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert response.json()["status"] == response.status_code == status
    return True


def test_generate_gives_the_picture_of_the_seed(client, digits_bundle):
    response = client.post("/generate", json={"model": "digits", "seed": 42, "class": "two", "truncation": 0.7})
    sample = digits_bundle.sample(seed=42, class_="two", truncation=0.7)
    assert response.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(response.content))), digits_bundle.picture(sample)[:, :, 0]
    )
    assert response.headers["x-seed"] == "42"
    assert response.headers["x-model"] == "digits"
    assert response.headers["x-sample-id"] == sample.id
    phases = [phase.partition(";dur=")[0] for phase in response.headers["server-timing"].split(", ")]
    assert phases == ["queue", "compute", "encode", "total"]


def test_the_same_request_is_the_same_bytes(client):
    ask = {"model": "plain", "seed": 2**64 - 1}
    assert client.post("/generate", json=ask).content == client.post("/generate", json=ask).content


def test_without_a_seed_the_server_draws_one_and_says_which(client):
    drawn = client.post("/generate", json={"model": "plain"})
    again = client.post("/generate", json={"model": "plain", "seed": int(drawn.headers["x-seed"])})
    assert again.content == drawn.content


def test_the_first_model_is_the_default(client):
    assert client.post("/generate", json={"class": 0}).headers["x-model"] == "digits"


@pytest.mark.parametrize(("accept", "media_type"), [("image/webp", "image/webp"), ("image/*", "image/png")])
def test_accept_chooses_the_format(client, accept, media_type):
    response = client.post("/generate", json={"model": "plain"}, headers={"Accept": accept})
    assert response.headers["content-type"] == media_type


def test_several_accept_headers_are_one(client):
    headers = [("Accept", "text/html"), ("Accept", "image/jpeg")]
    response = client.post("/generate", json={"model": "plain"}, headers=headers)
    assert response.headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("ask", "status", "detail"),
    [
        ({"model": "digit"}, 404, "unknown model 'digit'; available: digits, plain"),
        ({"model": "digits"}, 422, "class is missing; model 'digits' takes zero, one, two"),
        ({"model": "plain", "class": "two"}, 422, "knows no classes"),
        ({"model": "plain", "truncation": 0.5}, 422, "knows no truncation"),
        ({"truncation": 1e-10}, 422, "greater than or equal to 0.001"),  # an id would hold 0
        ({"seeds": [1]}, 422, "unknown member"),
    ],
)
def test_mistakes_are_told(client, caplog, ask, status, detail):
    response = client.post("/generate", json=ask)
    assert is_problem(response, status)
    assert detail in response.json()["detail"]
    assert "Traceback" not in caplog.text


def test_format_against_accept_is_not_acceptable(client):
    response = client.post("/generate", json={"model": "plain", "format": "png"}, headers={"Accept": "image/webp"})
    assert is_problem(response, 406)


def test_bodies_that_cannot_be_read(client):
    headers = {"Content-Type": "application/json"}
    assert is_problem(client.post("/generate", content=b"{", headers=headers), 400)
    assert is_problem(client.post("/generate", content=b"", headers=headers), 400)
    assert is_problem(client.post("/generate", data={"seed": 1}), 415)
    assert is_problem(client.post("/generate", content=b" " * 70_000, headers=headers), 413)
    assert is_problem(client.post("/generate", content=iter([b" " * 40_000] * 2), headers=headers), 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/models/", 404),
        ("GET", "/models/nothing", 404),
        ("GET", "/models/nothing/samples.png", 404),
        ("GET", "/models/../api.py", 404),
        ("GET", "/web/nothing.js", 404),
        ("GET", "/web/..%2fapi.py", 404),
        ("GET", "/%0a%ff", 404),
        ("GET", "/generate", 405),
        ("OPTIONS", "/generate", 405),
        ("DELETE", "/models", 405),
        ("POST", "/web/style.css", 405),
        ("BREW", "/", 405),
    ],
)
def test_what_is_not_there(client, method, path, status):
    response = client.request(method, path)
    assert is_problem(response, status)
    assert response.headers.get("allow") == ({"/generate": "POST"}.get(path, "GET, HEAD") if status == 405 else None)


def pixels_of(file):
    return np.asarray(Image.open(io.BytesIO(file)))


def unpacked(name, content):
    """The pictures in an archive of digits, [N, 8, 8]."""
    if name == "npz":
        return np.load(io.BytesIO(content), allow_pickle=False)["pixels"][..., 0]
    if name == "sheet":  # a full square
        side = math.isqrt(pixels_of(content).size // 64)
        return pixels_of(content).reshape(side, 8, side, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    if name == "json":
        files = [base64.b64decode(sample["image"]) for sample in json.loads(content)["samples"]]
    elif name == "tar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            files = [tar.extractfile(member).read() for member in tar if member.name.endswith(".png")]
    else:
        with zipfile.ZipFile(io.BytesIO(content)) as container:
            files = [container.read(member) for member in container.namelist()]
    return np.stack([pixels_of(file) for file in files])


@pytest.mark.parametrize("name", ARCHIVES)
def test_pictures_in_every_container_are_those_of_generate(client, name):
    ask = {"model": "digits", "seed": 2**64 - 2, "count": 4, "classes": ["two", 0], "truncation": 0.5, "format": name}
    response = client.post("/sample", json=ask)
    assert response.headers["content-type"] == ARCHIVES[name].media_type
    assert (response.headers["x-seed"], response.headers["x-count"]) == (str(2**64 - 2), "4")
    assert (response.headers["x-model"], response.headers["x-determinism"]) == ("digits", "exact; batch=free")
    filename = f"digits-{2**64 - 2}-4.{ARCHIVES[name].extension}"
    assert response.headers["content-disposition"] == f'attachment; filename="{filename}"'
    alone = [
        {"model": "digits", "seed": seed, "class": class_, "truncation": 0.5}
        for seed, class_ in ((2**64 - 2, "two"), (2**64 - 1, "zero"), (0, "two"), (1, "zero"))
    ]
    expected = np.stack([pixels_of(client.post("/generate", json=one).content) for one in alone])
    np.testing.assert_array_equal(unpacked(name, response.content), expected)
    assert client.post("/sample", json=ask).content == response.content


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_answer_that_was_cut_goes_on_where_it_ended(client, name):
    ask = {"model": "digits", "seed": 1, "count": 9, "classes": ["two", 0], "format": name}
    whole, rest = (client.post("/sample", json={**ask, "start": start}) for start in (0, 5))
    assert (rest.headers["x-seed"], rest.headers["x-count"]) == ("6", "4")
    np.testing.assert_array_equal(unpacked(name, rest.content), unpacked(name, whole.content)[5:])
    if name == "tar":  # members, their names included
        assert whole.content.endswith(rest.content)


def test_seeds_are_listed_and_given_in_ranges(client):
    ask = {"model": "plain", "seeds": "0-99,200", "format": "npz"}
    response = client.post("/sample", json=ask)
    assert (response.headers["x-seed"], response.headers["x-count"]) == ("0", "101")
    seeds = np.load(io.BytesIO(response.content))["seeds"].tolist()
    assert seeds == [*range(100), 200]
    ask["seeds"] = [7, " 3-4 , 9", 2**64 - 1]
    assert np.load(io.BytesIO(client.post("/sample", json=ask).content))["seeds"].tolist() == [7, 3, 4, 9, 2**64 - 1]


def test_accept_chooses_the_container(client):
    def answered(accept, **ask):
        return client.post("/sample", json={"model": "plain", "count": 1, **ask}, headers={"Accept": accept})

    assert answered("*/*").headers["content-type"] == "application/zip"
    assert answered("application/x-tar, */*;q=0.1").headers["content-type"] == "application/x-tar"
    assert answered("image/png").headers["content-type"] == "image/png"
    assert answered("*/*", format="json", picture="jpeg").json()["samples"][0]["media_type"] == "image/jpeg"
    assert is_problem(answered("image/webp"), 406)
    assert is_problem(answered("application/zip", format="tar"), 406)


@pytest.mark.parametrize(
    ("ask", "status", "pointer", "detail"),
    [
        ({}, 422, "/count", "count is missing"),
        ({"count": 0}, 422, "/count", "greater than or equal to 1"),
        ({"count": -(2**70)}, 422, "/count", "greater than or equal to 1"),
        ({"count": 2**64}, 422, "/count", "less than 18446744073709551616"),
        ({"count": 101}, 413, None, "101 pictures are asked for; one request takes at most 100"),
        ({"count": 2**63}, 413, None, "at most 100"),
        ({"seeds": "0-18446744073709551615"}, 413, None, "18446744073709551616 pictures are asked for"),
        ({"seeds": "18446744073709551616"}, 422, "/seeds", "seeds are below 2**64"),
        ({"seeds": "9-3"}, 422, "/seeds", "the smaller number first"),
        ({"seeds": "1,,2"}, 422, "/seeds", "seeds and ranges like 0-99,200"),
        ({"seeds": "9" * 10_000}, 422, "/seeds", "seeds and ranges like 0-99,200"),
        ({"seeds": "٣"}, 422, "/seeds", "seeds and ranges like 0-99,200"),
        ({"seeds": []}, 422, "/seeds", "at least 1 item"),
        ({"seeds": [1, -1]}, 422, "/seeds/1", "greater than or equal to 0"),
        ({"seeds": [1], "seed": 1}, 422, "/seeds", "leave seed and count out"),
        ({"count": 1, "classes": {"zero": 2}}, 422, "/classes", "add up to 2"),
        ({"classes": {"a/b": 1}}, 422, "/classes/a~1b", "unknown class"),
        ({"classes": {"zero": -1}}, 422, "/classes/zero", "greater than or equal to 0"),
        ({"classes": {"zero": 10**4000}}, 422, "/classes/zero", "less than"),
        ({"count": 1, "classes": "four"}, 422, "/classes", "unknown class 'four'"),
        ({"count": 1, "model": "plain", "classes": 0}, 422, "/classes", "knows no classes"),
        ({"count": 1, "format": "gif"}, 422, "/format", either(map(repr, ARCHIVES))),
        ({"count": 5, "format": "sheet"}, 413, None, "ask for 4 at most, or for a tar"),
    ],
)
def test_mistakes_in_samples_are_told(strict, ask, status, pointer, detail):
    response = strict.post("/sample", json=ask)
    assert is_problem(response, status)
    assert response.json().get("pointer") == pointer
    assert detail in response.json()["detail"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_id_gives_its_sample_again(client, name):
    ask = {"model": "digits", "seed": 5, "class": 1, "truncation": 0.25, "format": name}
    first = client.post("/generate", json=ask)
    again = client.get(f"/samples/{first.headers['x-sample-id']}", headers={"Accept": FORMATS[name].media_type})
    assert again.content == first.content
    for header in ("content-type", "x-seed", "x-sample-id", "x-model", "x-determinism"):
        assert again.headers[header] == first.headers[header]
    assert again.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert again.headers["vary"] == "Accept"
    # Replicas of another build may send other bytes, and must not call them the same.
    assert again.headers["etag"].endswith(f'.{__version__}.{ENCODERS}"')


def test_a_sample_that_a_client_has_is_not_made_again(client):
    id_ = client.post("/generate", json={"model": "plain", "seed": 3}).headers["x-sample-id"]
    first = client.get(f"/samples/{id_}")
    made = client.get("/metrics").text.count("ganery_pictures_total")
    etag = first.headers["etag"]
    for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = client.get(f"/samples/{id_}", headers={"If-None-Match": header})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert again.headers["cache-control"] == first.headers["cache-control"]
        assert "content-type" not in again.headers
    assert client.get("/metrics").text.count("ganery_pictures_total") == made
    for headers in ({"If-None-Match": '"other"'}, {"If-None-Match": etag, "Accept": "image/webp"}):
        assert client.get(f"/samples/{id_}", headers=headers).status_code == 200
    assert client.head(f"/samples/{id_}").headers["etag"] == etag


def test_ids_that_lead_nowhere(client, digits_bundle):
    digest = digits_bundle.manifest.digest[:16]
    assert is_problem(client.get(f"/samples/g1.{'0' * 16}.1.0.1000"), 404)
    for wrong in ("1.-.1000", "1.3.1000", f"{2**64}.0.1000", "1.0.1001", "01.0.1000", "1.0.1000.", "", "1%2f0"):
        response = client.get(f"/samples/g1.{digest}.{wrong}")
        assert is_problem(response, 404 if "%2f" in wrong else 422)
    assert is_problem(client.get(f"/samples/g1.{digest}.1.0.1000", headers={"Accept": "text/html"}), 406)


def test_an_interpolation_goes_from_sample_to_sample(client):
    ask = {"model": "digits", "from": 1, "to": {"seed": 2, "class": "two"}, "class": 0, "steps": 3, "format": "zip"}
    response = client.post("/interpolate", json=ask)
    assert (response.headers["content-type"], response.headers["x-frames"]) == ("application/zip", "4")
    assert response.headers["x-model"] == "digits"
    with zipfile.ZipFile(io.BytesIO(response.content)) as container:
        frames = [pixels_of(container.read(name)) for name in container.namelist()]
    for frame, end in ((frames[0], {"seed": 1, "class": 0}), (frames[3], {"seed": 2, "class": 2})):
        np.testing.assert_array_equal(
            frame, pixels_of(client.post("/generate", json={"model": "digits", **end}).content)
        )
    points = {"model": "digits", "points": [1, {"seed": 2, "class": "two"}], "class": 0, "steps": 3, "format": "sheet"}
    sheet = client.post("/interpolate", json=points).content
    np.testing.assert_array_equal(pixels_of(sheet), contact_sheet(np.stack(frames)[..., None])[..., 0])


def test_the_frames_of_a_zip_say_between_which_points_they_lie(client):
    points = [{"seed": seed, "class": 0} for seed in (1, 2, 3)]
    ask = {"model": "digits", "points": points, "steps": 2, "format": "zip"}
    with zipfile.ZipFile(io.BytesIO(client.post("/interpolate", json=ask).content)) as container:
        said = [json.loads(Image.open(container.open(name)).text["ganery"]) for name in container.namelist()]
    ids = [client.post("/generate", json={"model": "digits", **point}).headers["x-sample-id"] for point in points]
    expected = [(ids[:2], 0), (ids[:2], 1), (ids[1:], 0), (ids[1:], 1), (ids[1:], 2)]
    assert [(each["interpolation"], each["step"]) for each in said] == expected


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("POST", "/generate?seed=5", "send members in the JSON object of the body"),
        ("POST", "/sample?count=5", "send members in the JSON object of the body"),
        ("POST", "/verify?format=png", "the picture is all that is sent"),
        ("GET", "/samples/g1.0.0.0.0?format=webp", "the header Accept"),
    ],
)
def test_a_query_that_nobody_reads_is_told(client, method, path, what):
    response = client.request(method, path, **({"json": {}} if method == "POST" else {}))
    assert is_problem(response, 422)
    assert what in response.json()["detail"]


def test_an_accept_of_any_length_takes_no_time(client):
    began = time.process_time()
    for _ in range(20):
        assert is_problem(client.post("/sample", json={"count": 1}, headers={"Accept": "b," * 30_000}), 406)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("path", "range_"), [("/", "bytes=999999-"), ("/docs", "bites=1"), ("/web/style.css", "x")])
def test_pages_are_sent_whole_whatever_part_is_asked_for(client, path, range_):
    assert client.get(path, headers={"Range": range_}).content == client.get(path).content


@pytest.mark.parametrize(("accept", "kind"), [("*/*", "GIF"), ("image/webp", "WEBP")])
def test_an_interpolation_moves(client, accept, kind):
    ask = {"model": "digits", "points": [1, 2, 3], "class": 0, "steps": 4, "loop": True, "milliseconds": 50}
    response = client.post("/interpolate", json=ask, headers={"Accept": accept})
    picture = Image.open(io.BytesIO(response.content))
    assert (picture.format, picture.n_frames, response.headers["x-frames"]) == (kind, 12, "12")
    assert response.headers["content-disposition"] == f'attachment; filename="digits-1-12.{kind.lower()}"'
    assert client.post("/interpolate", json=ask, headers={"Accept": accept}).content == response.content


@pytest.mark.parametrize(
    ("ask", "status", "detail"),
    [
        ({}, 422, "send from and to, or points"),
        ({"from": 1}, 422, "not one end alone"),
        ({"from": 1, "to": 2, "points": [1, 2]}, 422, "not both"),
        ({"points": [1]}, 422, "at least 2 items"),
        ({"points": [1] * 65}, 422, "at most 64 items"),
        ({"points": [1, {"seed": -1}]}, 422, "greater than or equal to 0"),
        ({"from": 1, "to": 2, "steps": 0}, 422, "greater than or equal to 1"),
        ({"from": 1, "to": 2, "steps": 241}, 422, "less than or equal to 240"),
        ({"from": 1, "to": 2, "milliseconds": 19}, 422, "greater than or equal to 20"),
        ({"from": 1, "to": 2, "model": "digits"}, 422, "class is missing"),
        ({"from": 1, "to": 2, "class": 0}, 422, "knows no classes"),
        ({"from": 1, "to": 2, "steps": 4}, 413, "5 frames have 320 pixels; at most 256 are made"),
    ],
)
def test_mistakes_in_interpolations_are_told(strict, ask, status, detail):
    response = strict.post("/interpolate", json={"model": "plain", **ask})
    assert is_problem(response, status)
    assert detail in response.json()["detail"]


@pytest.mark.parametrize(
    ("ask", "pointer"),
    [
        ({"from": 1, "to": {"seed": 2, "class": 99}, "class": 0}, "/to/class"),
        ({"points": [1, {"seed": 2, "class": "none"}], "class": 0}, "/points/1/class"),
        ({"points": [{"seed": 1}, 2], "class": 99}, "/class"),
        ({"points": [{"seed": 1}, 2]}, "/class"),
    ],
)
def test_a_mistake_in_a_point_is_found_where_it_stands(client, ask, pointer):
    response = client.post("/interpolate", json={"model": "digits", **ask})
    assert is_problem(response, 422)
    assert response.json()["pointer"] == pointer


def test_every_answer_says_how_long_it_took(client):
    answers = [
        client.get("/livez"),
        client.get("/nothing"),
        client.get("/models"),
        client.get("/web/style.css"),
        client.post("/generate", json={"seed": -1}),
        client.post("/sample", json={"model": "plain", "count": 1}),
        client.post("/interpolate", json={"model": "plain", "from": 1, "to": 2}),
        client.get("/livez", headers={"X-Deadline-Ms": "0"}),
    ]
    for answer in answers:
        assert float(answer.headers["server-timing"].partition("total;dur=")[2]) >= 0


def test_the_first_picture_of_a_deadline_that_has_no_time_left(plain, gate, serve):
    with serve() as client:
        response = client.post("/generate", json={}, headers={"X-Deadline-Ms": "100"})
        gate.opened.set()
        assert is_problem(response, 504)
        assert is_problem(client.post("/generate", json={}, headers={"X-Deadline-Ms": "soon"}), 422)
        assert client.post("/generate", json={}, headers={"X-Deadline-Ms": "20000"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/models", "/livez", "/readyz", "/metrics", "/openapi.json"])
def test_head_is_get_without_a_body(client, path):
    head = client.head(path)
    assert head.status_code == 200
    assert head.headers["content-type"] == client.get(path).headers["content-type"]


def test_models(client):
    answer = client.get("/models").json()
    assert answer["default"] == "digits"
    assert [model["name"] for model in answer["models"]] == ["digits", "plain"]
    assert answer["models"][0]["classes"] == ["zero", "one", "two"]
    assert answer["models"][0]["truncation"] is True
    assert answer["models"][1]["seeds"] == 2**64
    assert answer["refused"] == []


def test_a_default_that_is_not_served_is_none(serve, plain):
    with serve(default_model="plane") as client:
        answer = client.get("/models").json()
        assert (answer["default"], answer["defaults"]) == (None, {})


def test_a_card_holds_the_manifest(client, digits_bundle):
    card = client.get("/models/digits").json()
    assert card["provider"] == "CPUExecutionProvider"
    assert card["golden"]["result"] == "untested"
    assert card["determinism"] == client.post("/generate", json={"class": 0}).headers["x-determinism"]
    assert card["determinism"] == "exact; batch=free"
    assert (card["runners"], card["max_batch"]) == (digits_bundle.batcher.runners, digits_bundle.rows_per_batch)
    assert card["pictures_per_second"] > 0
    assert card["digest"] == digits_bundle.manifest.digest
    assert card["manifest"] == digits_bundle.manifest.model_dump(mode="json")


def test_samples(client):
    response = client.get(client.get("/models/plain").json()["samples"])
    assert (response.headers["content-type"], response.content) == ("image/png", b"not looked at")


def test_one_bad_bundle_does_not_stop_the_others(serve, plain, digits):
    (digits / GENERATOR_FILE).write_bytes(b"x")
    with serve() as client:
        assert client.get("/readyz").status_code == 200
        (refusal,) = client.get("/models").json()["refused"]
        assert refusal["name"] == "digits"
        assert "sha256" in refusal["reason"]
        assert is_problem(client.get("/models/digits"), 503)
        assert client.post("/generate", json={}).headers["x-model"] == "plain"
        exposition = client.get("/metrics").text
        assert 'ganery_bundle_up{model="digits"} 0.0' in exposition
        assert 'ganery_bundle_up{model="plain"} 1.0' in exposition


def test_without_a_bundle_it_is_alive_and_not_ready(serve, plain):
    (plain / GENERATOR_FILE).write_bytes(b"x")
    with serve() as client:
        assert client.get("/livez").status_code == 200
        response = client.get("/readyz")
        assert is_problem(response, 503)
        assert "plain: sha256 of generator.onnx" in response.json()["detail"]
        assert "retry-after" not in response.headers  # somebody has to mend it first
        assert is_problem(client.post("/generate", json={}), 503)
        assert client.get("/models").json()["models"] == []


def test_a_failing_generator_is_logged_once_and_told_to_nobody(serve, plain, monkeypatch, caplog):
    def fail(self, feed):
        raise RuntimeError("secret")

    monkeypatch.setattr("service.generator.Generator._run", fail)
    with serve() as client:
        assert client.get("/models").json()["refused"][0]["reason"] == "unforeseen RuntimeError; the log has it"
    caplog.clear()
    monkeypatch.undo()
    with serve() as client:
        monkeypatch.setattr("service.generator.Generator._run", fail)
        response = client.post("/generate", json={"seed": 1}, headers={"X-Request-Id": "mine"})
    assert is_problem(response, 500)
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "request mine failed"


def test_a_picture_that_takes_too_long(plain, gate, serve):
    with serve(deadline_seconds=0.2) as client:
        response = client.post("/generate", json={"seed": 1})
        gate.opened.set()
    assert is_problem(response, 504)
    assert "within 0.2 seconds" in response.json()["detail"]


def test_a_queue_that_is_full_says_when_to_come_again(plain, gate, serve):
    with serve(queue_rows=1) as client, ThreadPoolExecutor() as threads:
        waiting = []
        while len(waiting) < RUNNERS:
            waiting.append(threads.submit(client.post, "/generate", json={}))
            assert gate.reached.acquire(timeout=30)
        waiting.append(threads.submit(client.post, "/generate", json={}))
        while 'ganery_queue_rows{model="plain"} 1.0' not in client.get("/metrics").text:
            pass
        response = client.post("/generate", json={})
        gate.opened.set()
        assert [future.result(30).status_code for future in waiting] == [200] * (RUNNERS + 1)
    assert is_problem(response, 429)
    assert "1 pictures are waiting" in response.json()["detail"]
    assert int(response.headers["retry-after"]) >= 1


@DEADLINE
@given(body=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_have_an_answer(client, body):
    response = client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 422)


@DEADLINE
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from(["plain", "digits", "nothing"]) | json_values,
            "seed": st.integers(0, 2**64 - 1) | json_values,
            "class": st.sampled_from(["one", 2]) | json_values,
            "truncation": st.sampled_from([1, 0.5]) | json_values,
            "format": st.sampled_from(["png", "jpeg", "webp"]) | json_values,
        },
    )
)
def test_any_request_is_a_picture_or_a_problem(client, ask):
    response = client.post("/generate", json=ask)
    if response.status_code == 200:
        Image.open(io.BytesIO(response.content)).load()
    else:
        assert response.status_code in (404, 422)
        assert is_problem(response, response.status_code)


@DEADLINE
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_any_accept_has_an_answer(client, accept):
    response = client.post("/generate", json={"model": "plain"}, headers={"Accept": accept})
    assert response.status_code in (200, 406)
