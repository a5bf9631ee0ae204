import json

import pytest

from service.cors import READABLE, SENDABLE
from service.openapi import document
from service.settings import Settings

PAGE = "https://example.org"
ALWAYS_READABLE = {"Cache-Control"}  # without being named, among others: Fetch standard, section 2.2.2
OF_THE_CONNECTION = {"Connection", "Vary"}  # for what stands between


def preflight(client, origin=PAGE, method="POST", headers="authorization, content-type"):
    return client.options(
        "/generate",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
    )


def test_off_unless_asked_for(serve, plain):
    with serve() as client:
        assert preflight(client).status_code == 405
        assert not [
            name for name in client.get("/models", headers={"Origin": PAGE}).headers if "access-control" in name
        ]


@pytest.mark.parametrize("origins", [PAGE, "*"])
def test_a_page_may_call(serve, plain, origins):
    with serve(cors_origins=origins) as client:
        allowed = preflight(client, headers=", ".join(SENDABLE))
        assert allowed.status_code == 200
        assert "POST" in allowed.headers["access-control-allow-methods"]
        answer = client.post("/generate", json={}, headers={"Origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == origins
        assert answer.headers["access-control-expose-headers"] == ", ".join(READABLE)
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers


def test_a_page_may_read_what_the_contract_names_and_send_what_it_takes():
    operations = [operation for path in json.loads(document())["paths"].values() for operation in path.values()]
    answers = [answer for operation in operations for answer in operation["responses"].values()]
    told = {name for answer in answers for name in answer["headers"]}
    assert told - OF_THE_CONNECTION - ALWAYS_READABLE <= set(READABLE)
    taken = {each["name"] for operation in operations for each in operation["parameters"] if each["in"] == "header"}
    assert taken == set(SENDABLE) - {"Authorization", "Content-Type"}


@pytest.mark.parametrize("origin", ["https://example.com", "http://example.org", "https://example.org:444", "null"])
def test_another_page_may_not(serve, plain, origin):
    with serve(cors_origins=PAGE) as client:
        assert preflight(client, origin).status_code == 400
        assert "access-control-allow-origin" not in client.get("/models", headers={"Origin": origin}).headers


def test_errors_can_be_read_and_a_preflight_needs_no_key(serve, plain, gate, tmp_path):
    (tmp_path / "keys").write_text("correct-horse-battery")
    with serve(cors_origins=PAGE, api_keys_file=tmp_path / "keys", deadline_seconds=0.05) as client:
        assert preflight(client).status_code == 200
        key = {"Authorization": "Bearer correct-horse-battery"}
        for answer, status in (
            (client.get("/models", headers={"Origin": PAGE}), 401),
            (client.get("/nothing", headers={"Origin": PAGE, **key}), 404),
            (client.post("/generate", json={}, headers={"Origin": PAGE, **key}), 504),
        ):
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["x-request-id"]
        gate.opened.set()


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        (PAGE, (PAGE,)),
        ("https://a.example , http://127.0.0.1:8080,", ("https://a.example", "http://127.0.0.1:8080")),
        ('["https://a.example", "http://[::1]:3000"]', ("https://a.example", "http://[::1]:3000")),
        ("chrome-extension://abcdefgh", ("chrome-extension://abcdefgh",)),
    ],
)
def test_origins_that_are_understood(monkeypatch, value, origins):
    monkeypatch.setenv("SERVICE_CORS_ORIGINS", value)
    assert Settings.from_environment().cors_origins == origins


@pytest.mark.parametrize(
    "value",
    [
        "example.org",
        "https://example.org/",
        "https://Example.org",
        "https://example.org:443",
        "http://example.org:80",
        "https://*.example.org",
        "https://user@example.org",
        "null",
        "https://a.example https://b.example",
        '["https://a.example"',
        '[["https://a.example"]]',
        "[1]",
    ],
)
def test_origins_that_no_browser_sends(monkeypatch, value):
    monkeypatch.setenv("SERVICE_CORS_ORIGINS", value)
    with pytest.raises(SystemExit, match=r"^SERVICE_CORS_ORIGINS=.* is not usable: "):
        Settings.from_environment()
