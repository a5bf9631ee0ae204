"""The public routes, asked over HTTP in this process."""

import io
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.manifest import GENERATOR_FILE

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
    assert response.headers["server-timing"].startswith("generate;dur=")


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


def test_a_card_holds_the_manifest(client, digits_bundle):
    card = client.get("/models/digits").json()
    assert card["provider"] == "CPUExecutionProvider"
    assert card["golden"]["result"] == "untested"
    assert card["runs_alone"] is True
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
        assert response.headers["retry-after"] == "1"
        assert is_problem(client.post("/generate", json={}), 503)
        assert client.get("/models").json()["models"] == []


def test_a_failing_generator_is_logged_once_and_told_to_nobody(serve, plain, monkeypatch, caplog):
    def fail(self, sample):
        raise RuntimeError("secret")

    monkeypatch.setattr("service.bundle.Bundle.picture", fail)
    with serve() as client:
        response = client.post("/generate", json={"seed": 1}, headers={"X-Request-Id": "mine"})
    assert is_problem(response, 500)
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "request mine failed"


def test_a_picture_that_takes_too_long(serve, plain, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr("service.bundle.Bundle.picture", lambda self, sample: release.wait(10))
    with serve(deadline_seconds=0.2) as client:
        response = client.post("/generate", json={"seed": 1})
        release.set()
    assert is_problem(response, 504)
    assert "within 0.2 seconds" in response.json()["detail"]


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
