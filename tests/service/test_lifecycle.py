import threading
from time import monotonic

import anyio
import pytest

from service.catalog import Catalog
from service.errors import NotReady, Stopping
from service.lifecycle import Lifecycle
from service.settings import Settings
from service.telemetry import Metrics

pytestmark = pytest.mark.anyio


@pytest.fixture
def lifecycle(tmp_path, plain):
    return Lifecycle(Settings(models_dir=tmp_path / "models", provider="cpu", processes=0), Metrics())


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


async def test_is_alive_before_anything_is_loaded_and_while_batches_end(lifecycle, gate):
    lifecycle.check_alive()
    await lifecycle.load()
    lifecycle.check_alive()
    bundle = lifecycle.catalog.bundles["plain"]
    future = bundle.batcher.submit(bundle.work([bundle.sample(seed=1)], lambda pixels: pixels))
    assert gate.reached.acquire(timeout=30)
    lifecycle.check_alive()
    gate.opened.set()
    future.result(30)
    await lifecycle.close()


async def test_a_batch_without_end_is_a_reason_to_be_restarted(tmp_path, plain, gate):
    settings = Settings(models_dir=tmp_path / "models", provider="cpu", processes=0, stall_seconds=0.05)
    lifecycle = Lifecycle(settings, Metrics())
    await lifecycle.load()
    bundle = lifecycle.catalog.bundles["plain"]
    future = bundle.batcher.submit(bundle.work([bundle.sample(seed=1)], lambda pixels: pixels))
    assert gate.reached.acquire(timeout=30)
    await anyio.sleep(0.1)
    with pytest.raises(NotReady, match="'plain' has been computing one batch for"):
        lifecycle.check_alive()
    lifecycle.check_ready()  # which is another question
    gate.opened.set()
    future.result(30)
    await lifecycle.close()
    lifecycle.check_alive()


async def test_closing_finishes_what_waits(lifecycle, gate):
    await lifecycle.close()  # with nothing loaded
    await lifecycle.load()
    bundle = lifecycle.catalog.bundles["plain"]

    def submit():
        return bundle.batcher.submit(bundle.work([bundle.sample(seed=1)], len))

    waiting = [submit() for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lifecycle.close)
        await anyio.sleep(0.05)
        with pytest.raises(Stopping, match="to another one"):
            submit()
        gate.opened.set()
    assert [future.result(0).value for future in waiting] == [1] * 5


def test_a_stalled_process_says_so(plain, gate, serve):
    with serve(stall_seconds=0.05, deadline_seconds=0.2) as client:
        assert client.post("/generate", json={}).status_code == 504
        response = client.get("/livez")
        assert response.status_code == 503
        assert "has been computing one batch" in response.json()["detail"]
        gate.opened.set()
        deadline = monotonic() + 30
        while client.get("/livez").status_code != 200:
            assert monotonic() < deadline


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


async def test_closing_waits_for_no_batch_without_end(lifecycle, gate, monkeypatch):
    monkeypatch.setattr("service.lifecycle.CLOSE_SECONDS", 0.1)
    await lifecycle.load()
    bundle = lifecycle.catalog.bundles["plain"]
    future = bundle.batcher.submit(bundle.work([bundle.sample(seed=1)], lambda pixels: pixels))
    assert gate.reached.acquire(timeout=30)
    with anyio.fail_after(30):
        await lifecycle.close()
    assert not future.done()
    gate.opened.set()
    future.result(30)
