"""The whole OpenAPI document against the application in this process: what schemathesis can think of."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from service.app import create_app
from service.lifecycle import Lifecycle
from service.settings import Settings
from service.telemetry import Metrics


class Stage:
    """Stands for the application, which begins after the tests have been collected from its document."""

    app = create_app(Lifecycle(Settings(), Metrics()))

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"  # its lifespan is not schemathesis's business
        await self.app(scope, receive, send)


# What suits a bundle, no schema says: a 422 for what fits the schema is no failure. Nor is a 504 for a client that
# leaves a millisecond, or a header that nobody knows.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {"enabled": False},
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 504]},
    },
    "generation": {"allow-extra-parameters": False},
}


@schemathesis.serializer("application/zip")
def as_it_is(context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


stage = Stage()
contract = schemathesis.openapi.from_asgi("/openapi.json", stage, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture(autouse=True)
def running(shared, monkeypatch):
    monkeypatch.setattr(stage, "app", shared.app)


@contract.parametrize()
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case):
    response = case.call_and_validate()
    assert response.status_code != 504 or "X-Deadline-Ms" in case.headers


def test_the_document_is_valid():
    contract.validate()
