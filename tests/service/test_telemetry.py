import logging

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from service.telemetry import Metrics, TelemetryMiddleware


async def hello(request):
    return PlainTextResponse(request.state.request_id)


def client_of(**settings):
    metrics = Metrics()
    app = Starlette(
        routes=[Route("/things/{name}", hello), Route("/livez", hello)],
        middleware=[Middleware(TelemetryMiddleware, metrics=metrics, **settings)],
    )
    client = TestClient(app)
    client.metrics = metrics
    return client


@pytest.fixture
def client():
    return client_of(access_log="all")


def count(client, **labels):
    return client.metrics.registry.get_sample_value("ganery_requests_total", labels)


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 64])
def test_keeps_a_good_request_id(client, given):
    response = client.get("/things/1", headers={"X-Request-Id": given})
    assert response.headers["x-request-id"] == response.text == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "né", 'a"b', "a\tb"])
def test_replaces_a_bad_one(client, given):
    response = client.get("/things/1", headers={"X-Request-Id": given.encode()})
    assert response.headers["x-request-id"] == response.text != given
    assert len(response.text) == 16


def test_every_request_has_its_own_id(client):
    assert client.get("/livez").text != client.get("/livez").text


def test_labels_are_route_templates(client):
    for i in range(20):
        client.get(f"/things/{i}")
        client.get(f"/nothing/{i}")
    assert count(client, route="/things/{name}", status="200", model="") == 20
    assert count(client, route="unmatched", status="404", model="") == 20


def test_the_access_line_carries_its_parts(client, caplog):
    with caplog.at_level(logging.INFO, "service"):
        client.get("/things/1?key=not-told", headers={"X-Request-Id": "abc"})
    (record,) = [record for record in caplog.records if record.name == "service.telemetry"]
    assert (record.method, record.route, record.status, record.model) == ("GET", "/things/{name}", 200, "")
    assert record.request_id == "abc"
    assert record.getMessage() == f"GET /things/1 200 {record.milliseconds} ms abc"


def test_unless_told_otherwise_only_failures_get_a_line(caplog):
    client = client_of()
    with caplog.at_level(logging.INFO, "service"):
        client.get("/things/1")
        client.get("/nothing")
    (record,) = [record for record in caplog.records if record.name == "service.telemetry"]
    assert record.status == 404


def test_a_log_line_is_no_longer_than_it_need_be(client, caplog):
    with caplog.at_level(logging.INFO, "service"):
        client.get("/things/" + "<" * 10_000)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "service.telemetry"]
    assert len(line) < 1000


def test_a_log_line_cannot_be_forged(client, caplog):
    with caplog.at_level(logging.INFO, "service"):
        client.get("/things/1%0aGET admin 200")
        client.get("/livez")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "service.telemetry"]
    assert line.startswith("GET /things/1%0AGET%20admin%20200 200 ")


SERIES = {
    "ganery_pictures_total": [{}],
    "ganery_batches_total": [{}],
    "ganery_batch_rows_total": [{"kind": "real"}, {"kind": "padding"}],
    "ganery_compute_seconds_count": [{}],
    "ganery_encode_seconds_count": [{}],
    "ganery_queue_seconds_count": [{"priority": "interactive"}, {"priority": "bulk"}],
    "ganery_rejections_total": [{"reason": "queue_full"}, {"reason": "deadline"}, {"reason": "gone"}],
    "ganery_queue_rows": [{}],
    "ganery_queue_wait_seconds": [{}],
}


def values(metrics, model):
    """Each series of a model's queue."""
    get = metrics.registry.get_sample_value
    return {
        (name, *labels.values()): get(name, {"model": model, **labels})
        for name, several in SERIES.items()
        for labels in several
    }


def test_the_series_of_a_queue_exist_from_the_start(plain, serve):
    with serve() as client:
        metrics = client.app.lifecycle.metrics
        assert set(values(metrics, "plain").values()) == {0}


def test_a_queue_counts_what_happens_in_it(make_bundle, serve):
    make_bundle("moody", graph={"moody": True})
    with serve(max_streams=1) as client:
        assert client.post("/generate", json={"seed": 1}).headers["x-determinism"] == "exact; batch=8"
        assert client.post("/sample", json={"seed": 0, "count": 20, "format": "tar"}).status_code == 200
        found = values(client.app.lifecycle.metrics, "moody")
    batches = found["ganery_batches_total",]
    assert found["ganery_pictures_total",] == found["ganery_batch_rows_total", "real"] == 21
    assert (21 + found["ganery_batch_rows_total", "padding"]) % 8 == 0
    assert found["ganery_compute_seconds_count",] == found["ganery_encode_seconds_count",] == batches >= 2
    assert found["ganery_queue_seconds_count", "interactive"] == 1
    assert found["ganery_queue_seconds_count", "bulk"] >= 1
    assert found["ganery_queue_rows",] == found["ganery_queue_wait_seconds",] == 0


def test_a_queue_counts_what_it_turns_away(plain, gate, serve):
    with serve(queue_rows=1, max_streams=1, deadline_seconds=0.3) as client:
        bundle = client.app.lifecycle.catalog.bundles["plain"]
        held = []
        while len(held) < bundle.batcher.runners:
            held.append(bundle.batcher.submit(bundle.work([bundle.sample()], len)))
            assert gate.reached.acquire(timeout=30)
        waiting = bundle.batcher.submit(bundle.work([bundle.sample()], len))
        found = values(client.app.lifecycle.metrics, "plain")
        assert found["ganery_queue_rows",] == 1
        assert found["ganery_queue_wait_seconds",] > 0
        assert client.post("/generate", json={}).status_code == 429
        waiting.cancel()
        gate.opened.set()
        for future in held:
            future.result(30)
        assert client.post("/generate", json={}).status_code == 200
        found = values(client.app.lifecycle.metrics, "plain")
    assert found["ganery_rejections_total", "queue_full"] == 1
    assert found["ganery_rejections_total", "gone"] == 1


def test_a_request_counts_its_route_and_its_model(plain, digits, serve):
    with serve() as client:
        sample = client.post("/generate", json={"model": "plain"}).headers["x-sample-id"]
        client.get(f"/samples/{sample}")
        client.get("/samples/nothing")
        client.post("/sample", json={"count": 1})
        client.post("/interpolate", json={"model": "nothing", "from": 1, "to": 2})
        get = client.app.lifecycle.metrics.registry.get_sample_value

        def count(route, status, model):
            return get("ganery_requests_total", {"route": route, "status": status, "model": model})

        assert count("/generate", "200", "plain") == count("/samples/{id}", "200", "plain") == 1
        assert count("/samples/{id}", "422", "") == count("/sample", "200", "digits") == 1
        assert count("/interpolate", "404", "") == 1
        assert get("ganery_requests_in_progress") == 0


def test_an_answer_tells_its_phases():
    async def timed(request):
        request.state.timings = (("queue", 0.0012), ("compute", 0.5))
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", timed)], middleware=[Middleware(TelemetryMiddleware, metrics=Metrics())])
    queue, compute, total = TestClient(app).get("/").headers["server-timing"].split(", ")
    assert (queue, compute) == ("queue;dur=1.2", "compute;dur=500.0")
    assert total.startswith("total;dur=")
