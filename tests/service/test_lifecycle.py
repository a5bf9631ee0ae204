import threading

import pytest

from service.catalog import Catalog
from service.errors import NotReady
from service.lifecycle import Lifecycle
from service.settings import Settings
from service.telemetry import Metrics

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def lifecycle(tmp_path, plain):
    return Lifecycle(Settings(models_dir=tmp_path / "models", provider="cpu"), Metrics())


async def test_loading_serving_draining(lifecycle):
    with pytest.raises(NotReady, match="being loaded"):
        lifecycle.check_ready()
    await lifecycle.load()
    lifecycle.check_ready()
    lifecycle.draining = True
    with pytest.raises(NotReady, match="draining"):
        lifecycle.check_ready()
    assert list(lifecycle.catalog.bundles) == ["plain"]  # requests that came before are still answered


async def test_says_in_metrics_what_is_served(lifecycle):
    await lifecycle.load()
    value = lifecycle.metrics.registry.get_sample_value
    assert value("ganery_bundle_up", {"model": "plain"}) == 1
    assert value("ganery_bundle_golden", {"model": "plain", "result": "untested"}) == 1
    assert value("ganery_bundle_provider", {"model": "plain", "provider": "CPUExecutionProvider"}) == 1


def test_probes_are_answered_while_loading(tmp_path, plain, serve_loading, monkeypatch):
    release = threading.Event()
    load = Catalog.load

    def slowly(*args, **kwargs):
        release.wait(10)
        return load(*args, **kwargs)

    monkeypatch.setattr(Catalog, "load", slowly)
    with serve_loading() as client:
        assert client.get("/livez").status_code == 200
        assert "being loaded" in client.get("/readyz").json()["detail"]
        assert client.post("/generate", json={}).status_code == 503
        assert client.get("/models").status_code == 503
        release.set()
