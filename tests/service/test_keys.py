import logging

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.keys import OPEN_FILES, OPEN_PATHS, Keys
from service.lifecycle import Lifecycle
from service.routes import ROUTES
from service.settings import Settings
from service.telemetry import Metrics

KEY, OTHER = "correct-horse-battery", "x" * 256
OPEN = ["/livez", "/readyz", "/metrics", "/", "/docs", "/openapi.json", "/web/playground.js", "/web/style.css"]
CLOSED = [
    "/models",
    "/models/plain",
    "/models/plain/samples.png",
    "/nothing",
    "/web",
    "/%2e%2e/models",
    "/livez/",
    "/LIVEZ",
    "/docs/x",
]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# who\n\n{KEY}\r\n  {OTHER}  \n")
    return file


def bearer(key, scheme="Bearer"):
    return {"Authorization": f"{scheme} {key}"}


@pytest.mark.parametrize("path", OPEN)
def test_open_paths_need_no_key(serve, plain, file, path):
    with serve(api_keys_file=file) as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
def test_everything_else_needs_one(serve, plain, file, path):
    with serve(api_keys_file=file) as client:
        for headers in ({}, bearer("wrong-horse-battery"), bearer(KEY, "Basic"), {"Authorization": KEY}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["type"] == "urn:ganery:problem:unauthorized"
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
        for headers in (bearer(KEY), bearer(OTHER), bearer(KEY, "bearer"), bearer(f" {KEY} ")):
            assert client.get(path, headers=headers).status_code in (200, 404)


def test_what_is_open_is_there():
    assert {route.path for route in ROUTES} >= OPEN_PATHS | {OPEN_FILES.rstrip("/")}


def test_a_picture_for_a_key(serve, plain, file):
    with serve(api_keys_file=file) as client:
        assert client.post("/generate", json={}).status_code == 401
        answer = client.post("/generate", json={}, headers=bearer(KEY))
        assert answer.status_code == 200
        again = client.get(f"/samples/{answer.headers['x-sample-id']}", headers=bearer(KEY))
        assert again.headers["cache-control"].startswith("private")  # a shared cache would give it to everybody


def test_metrics_can_be_closed(serve, plain, file):
    with serve(api_keys_file=file, metrics_need_key=True) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=bearer(KEY)).status_code == 200
        assert client.get("/livez").status_code == 200


def test_without_keys_everybody_may_call(serve, plain):
    with serve(metrics_need_key=True) as client:
        assert client.get("/models").status_code == client.get("/metrics").status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 15, KEY[:-1], KEY + "x", KEY.upper(), "é" * 20, "x" * 60_000])
def test_what_is_no_key(key):
    assert key not in Keys([KEY, OTHER])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no key is in the file"),
        (b"# nothing\n\n", "no key is in the file"),
        (b"long-enough-for-a-key\nsecret-short", "line 2 is no key"),
        (b"a secret of several words", "line 1 is no key"),
        (b"secret-and-long-enough # mine", "line 1 is no key"),
        (b"secret-" + b"x" * 250, "line 1 is no key"),
        ("secret-and-umlaut-ü-".encode(), "line 1 is no key"),
        (b"secret-\x00-and-long-enough", "line 1 is no key"),
        (b"secret-\xff-and-long-enough", "cannot be read: it is not text"),
    ],
)
def test_a_bad_file_is_an_end_that_tells_no_key(tmp_path, content, message):
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(SystemExit, match=message) as error:
        Keys.read(file)
    assert "secret" not in str(error.value)
    assert "long-enough" not in str(error.value)


def test_a_file_that_is_not_there_may_be_a_key(tmp_path):
    for file in (tmp_path / "secret-key-in-the-wrong-variable", tmp_path):
        with pytest.raises(SystemExit, match=r"cannot be read: (No such file|Is a directory)") as error:
            Keys.read(file)
        assert str(tmp_path) not in str(error.value)
        with pytest.raises(SystemExit):
            create_app(Lifecycle(Settings(api_keys_file=file), Metrics()))


def test_no_key_is_told_or_logged(serve, plain, file, caplog, monkeypatch):
    def fail(self):
        raise RuntimeError("broken")

    monkeypatch.setattr(Lifecycle, "catalog", property(fail))
    with (
        caplog.at_level(logging.DEBUG),
        TestClient(create_app(Lifecycle(Settings(api_keys_file=file), Metrics()))) as client,
    ):
        answers = [client.get("/models", headers=bearer(key)) for key in (KEY, "wrong-horse-battery")]
    assert [answer.status_code for answer in answers] == [500, 401]
    assert "broken" in caplog.text
    for text in (caplog.text, *(answer.text for answer in answers), *map(str, caplog.records), repr(Keys([KEY]))):
        assert "horse" not in text
