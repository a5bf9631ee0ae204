"""The real thing: `python -m service serve` and `bentoml serve` in processes of their own, on loopback."""

import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from server_process import BENTOML, BENTOML_SERVE, PATIENCE, ROOT, SERVE, Server, serving


@pytest.fixture(scope="module", params=[SERVE, BENTOML_SERVE], ids=["service", "bentoml"])
def command(request: pytest.FixtureRequest) -> list[str]:
    return request.param


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path, command: list[str]) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server")
    limits = {"SERVICE_MAX_BODY_BYTES": "1000", "SERVICE_DEADLINE_SECONDS": "2"}
    with serving(home, models, command=command, **limits) as server:
        server.wait_for('"ready"')
        yield server


def is_problem(response: httpx2.Response, status: int) -> bool:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert response.json()["status"] == response.status_code == status
    return True


def test_a_picture_comes_out(server):
    response = server.client.post("/generate", json={"seed": 42, "class": "two"})
    assert response.headers["x-model"] == "digits"
    assert Image.open(io.BytesIO(response.content)).size == (8, 8)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/generate", 405), ("POST", "/readyz", 405)]
    + [("GET", path, 404) for path in ("/healthz", "/docs.json", "/schema.json", "/static_content/index.css")],
)
def test_errors_are_ours_and_none_is_bentomls(server, method, path, status):
    assert is_problem(server.client.request(method, path), status)


def test_bodies_are_bounded_with_and_without_a_length(server):
    headers = {"Content-Type": "application/json"}
    assert is_problem(server.client.post("/generate", content=b" " * 1001, headers=headers), 413)
    assert is_problem(server.client.post("/generate", content=iter([b" " * 600] * 2), headers=headers), 413)


def test_the_deadline_is_ours_and_not_bentomls(server):
    with server.send_head(length=10) as connection:
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"content-type: application/problem+json" in answer
    assert b"urn:ganery:problem:deadline-exceeded" in answer


def test_metrics_are_ours(server):
    for i in range(5):
        server.client.get(f"/random/{i}")
    exposition = server.client.get("/metrics").text
    assert re.search(r'^ganery_requests_total\{model="",route="unmatched",status="404"\} ', exposition, re.MULTILINE)
    assert "random" not in exposition
    assert "bentoml" not in exposition


def test_another_process_makes_the_same_picture_and_stops_when_it_is_done(server, command, tmp_path, models):
    ask = b'{"model": "digits", "seed": 9, "class": 1, "truncation": 0.5}'
    expected = server.client.post("/generate", content=ask, headers={"Content-Type": "application/json"}).content
    with serving(tmp_path, models, command=command, SERVICE_DRAIN_SECONDS="1.5") as other:
        other.wait_for('"ready"')
        with other.send_head(len(ask)) as connection:
            connection.sendall(ask[:10])
            other.process.send_signal(signal.SIGTERM)
            other.wait_for("draining")  # and still takes connections
            other.client.close()
            time.sleep(2)
            assert other.process.poll() is None  # it waits for the request in flight
            connection.sendall(ask[10:])
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(expected)
        assert other.process.wait(PATIENCE) == 0
        assert "Traceback" not in other.log.read_text()


def test_a_bad_setting_is_one_line_and_an_end(command, tmp_path, models):
    with serving(tmp_path, models, command=command, SERVICE_PROVIDER="gpu") as server:
        assert server.process.wait(PATIENCE) == 1
        first, *others = server.log.read_text().splitlines()
        assert first == "SERVICE_PROVIDER='gpu' is not usable: Input should be 'auto', 'cpu' or 'cuda'"
        assert all("failed to start" in line for line in others)


def test_a_worker_that_is_killed_comes_again(tmp_path, models):
    with serving(tmp_path, models) as server:
        server.wait_for('"ready"')
        (first,) = server.workers()
        os.kill(first, signal.SIGKILL)
        while first in server.workers():
            time.sleep(0.05)
        server.wait_for('"ready"')
        assert server.workers() != [first]
        assert server.client.post("/generate", json={"seed": 42, "class": "two"}).status_code == 200
        assert server.stop() == 0


def test_a_bad_keys_file_is_one_line_and_an_end(tmp_path, models):
    (tmp_path / "keys").write_text("secret-short")
    with serving(tmp_path, models, SERVICE_API_KEYS_FILE=str(tmp_path / "keys")) as server:
        assert server.process.wait(PATIENCE) == 1
        first, *others = server.log.read_text().splitlines()
        assert "line 1 is no key" in first
        assert all("failed to start" in line for line in others)


def test_behind_keys_every_line_is_json_and_a_slow_body_is_cut(tmp_path, models):
    (tmp_path / "keys").write_text("correct-horse-battery")
    settings = {
        "SERVICE_API_KEYS_FILE": str(tmp_path / "keys"),
        "SERVICE_CORS_ORIGINS": "https://example.org",
        "SERVICE_LOG_FORMAT": "json",
        "SERVICE_ACCESS_LOG": "all",
        "SERVICE_BODY_SECONDS": "0.5",
    }
    with serving(tmp_path, models, **settings) as server:
        server.wait_for('"ready"')
        refused = server.client.get("/models", headers={"Origin": "https://example.org"})
        assert is_problem(refused, 401)
        assert refused.headers["access-control-allow-origin"] == "https://example.org"
        key = {"Authorization": "Bearer correct-horse-battery"}
        taken = server.client.post("/generate", json={"class": "two"}, headers={**key, "X-Request-Id": "mine"})
        assert taken.status_code == 200
        with server.send_head(length=10, **key) as connection:
            connection.sendall(b"{")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until the server closes
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert server.stop() == 0
        text = server.log.read_text()
    assert "horse" not in text
    lines = {line["request_id"]: line for line in map(json.loads, text.splitlines()) if "request_id" in line}
    expected = {"level": "INFO", "method": "POST", "route": "/generate", "status": 200, "model": "digits"}
    assert lines["mine"].items() >= expected.items()
    assert sorted(line["status"] for line in lines.values()) == [200, 401, 408]


def test_without_a_good_bundle_it_lives_and_is_not_ready(tmp_path):
    with serving(tmp_path, tmp_path / "nothing") as server:
        server.wait_for("cannot be listed")
        assert is_problem(server.client.get("/readyz"), 503)
        assert server.client.get("/livez").status_code == 200
        assert server.stop() == 0


def test_a_built_bento_holds_the_service_only_and_serves(tmp_path, models):
    environment = {
        **os.environ,
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PATH": f"{BENTOML.parent}{os.pathsep}{os.environ['PATH']}",  # else BentoML does not find uv, and installs it
    }
    built = subprocess.run(
        [BENTOML, "build", "--output", "tag"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (source,) = (tmp_path / "bentoml" / "bentos").glob("*/*/src")
    assert {path.name for path in source.iterdir()} <= {"service", "models", "LICENSE", "bentofile.yaml"}
    assert (source / "service" / "web" / "index.html").exists()
    with serving(tmp_path, models, command=[str(BENTOML), "serve", str(source.parent)]) as server:
        server.wait_for('"ready"')
        assert server.client.post("/generate", json={"seed": 42, "class": "two"}).status_code == 200
