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


@pytest.fixture
def client():
    metrics = Metrics()
    app = Starlette(
        routes=[Route("/things/{name}", hello), Route("/livez", hello)],
        middleware=[Middleware(TelemetryMiddleware, metrics=metrics)],
    )
    client = TestClient(app)
    client.metrics = metrics
    return client


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


def test_a_log_line_cannot_be_forged(client, caplog):
    with caplog.at_level(logging.INFO, "service"):
        client.get("/things/1%0aGET admin 200")
        client.get("/livez")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "service.telemetry"]
    assert line.startswith("GET /things/1%0AGET%20admin%20200 200 ")
