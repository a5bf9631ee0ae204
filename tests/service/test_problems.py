import pytest
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from service.app import Application
from service.errors import ModelFailure, NonFiniteOutput, NotReady
from service.problems import Cut, ProblemMiddleware
from service.telemetry import Metrics, TelemetryMiddleware


def ask(failure):
    async def fail(request):
        raise failure

    app = Application(
        routes=[Route("/", fail)],
        middleware=[Middleware(TelemetryMiddleware, metrics=Metrics()), Middleware(ProblemMiddleware)],
    )
    return TestClient(app).get("/")


def test_an_error_of_ours_is_told_with_its_headers(caplog):
    response = ask(NotReady("later"))
    assert (response.status_code, response.json()["detail"]) == (503, "later")
    assert response.headers["retry-after"] == "1"
    assert not caplog.records


@pytest.mark.parametrize("failure", [RuntimeError("secret"), HTTPException(418, "secret")])
def test_anything_else_is_a_500_that_says_nothing(failure, caplog):
    response = ask(failure)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "secret" in caplog.text


def test_a_model_failure_is_told_in_our_words_and_logged(caplog):
    response = ask(ModelFailure("the generator failed"))
    assert response.json()["detail"] == "the generator failed"
    assert response.json()["request_id"] in caplog.text


def test_text_that_cannot_be_encoded_is_told_all_the_same():
    assert ask(NotReady("\ud800")).json()["detail"] == "\ud800"


def test_a_client_that_left_is_nobodys_failure(caplog):
    with pytest.raises(AssertionError):  # the test client misses its answer
        ask(ClientDisconnect())
    assert not caplog.records


def test_an_answer_that_breaks_off_does_not_look_whole_and_is_counted():
    metrics = Metrics()

    async def breaking(request):
        async def chunks():
            yield b"half"
            raise NonFiniteOutput("broken")

        return StreamingResponse(chunks())

    app = Application(
        routes=[Route("/", breaking)],
        middleware=[Middleware(TelemetryMiddleware, metrics=metrics), Middleware(ProblemMiddleware)],
    )
    with pytest.raises(Cut) as error:
        TestClient(app).get("/")
    assert isinstance(error.value.__cause__, NonFiniteOutput)
    for name, labels in {
        "ganery_problems_total": {"kind": "non-finite-output", "model": ""},
        "ganery_requests_total": {"route": "/", "status": "500", "model": ""},
    }.items():
        assert metrics.registry.get_sample_value(name, labels) == 1
