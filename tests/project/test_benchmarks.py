"""The benchmark of the server, but for what takes minutes: its figures and its rivals."""

import io
import tarfile
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu, report, sampling
from benchmarks.compare import medians
from benchmarks.environments import ROOT, requirements_of
from benchmarks.rivals import RIVALS
from service.runtime import open_session

ROUND = {
    "ready_seconds": 2.0,
    "idle_megabytes": {"pss": 100.0, "rss": 120.0},
    "loaded_megabytes": {"pss": 110.0, "rss": 130.0},
    "by_connections": {"1": {"pictures_per_second": 300.0, "p50_ms": 3.0, "p99_ms": 4.0, "errors": 1}},
    "limit": 1000.0,
    "milliseconds_of_one_by_threads": {"1": 2.0},
}
SLOW_ROUND = {**ROUND, "limit": 500.0, "milliseconds_of_one_by_threads": {"1": 4.0}}
RIVAL = {**ROUND, "by_connections": {"1": {"pictures_per_second": 200.0, "p50_ms": 6.0, "p99_ms": 7.0, "errors": 0}}}


def server(title: str, *rounds: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, **medians([*rounds]), "rounds": [*rounds]}


RESULTS = {
    "date": "2026-01-01",
    "machine": {"cpu": "one", "cpus": 2, "system": "Linux"},
    "versions": {"python": "3.11"},
    "rounds": 1,
    "seconds": 1,
    "bundles": {
        "fashion": {
            "picture": [28, 28, 1],
            "limit": {"slow": 500.0, "fast": 1000.0},
            "servers": {
                "ours": server("Ganery", ROUND, SLOW_ROUND, SLOW_ROUND),
                "fastapi": server("FastAPI", RIVAL, ROUND, ROUND),
                "triton": {"title": "Triton", "unavailable": "not installed"},
            },
        }
    },
    "sample": {"unavailable": "404"},
    "start": {"bundles": 8, **ROUND},
}


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_is_a_program_and_a_pinned_package(name: str) -> None:
    assert (ROOT / "benchmarks" / "rivals" / f"{name}.py").exists()
    pins = [line for line in requirements_of(RIVALS[name]).read_text().splitlines() if not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    assert any(pin.startswith(f"{RIVALS[name].package}==") for pin in pins)


def test_figures_are_medians_and_errors_are_added_up() -> None:
    rounds = [{"cell": {"p50_ms": value, "errors": 2}} for value in (1.0, 9.0, 2.0)]
    assert medians(rounds) == {"cell": {"p50_ms": 2.0, "errors": 6}}


def test_ratios_are_those_of_each_round_and_its_own_limit() -> None:
    text = report.markdown(RESULTS)
    assert "(fast; 1,000 pictures/s when arrangements were tried)" in text
    assert "| Ganery | 0.60 (0.30-0.60) |" in text
    assert "| FastAPI | 2.00 (1.50-2.00) |" in text  # 0.3 to 0.2 of the limit, and twice 0.6 to 0.3
    assert "| Ganery | 0.75 (0.75-1.50) of 4.00 |" in text
    assert "| Triton | not installed |" in text


def test_pictures_of_a_long_answer_are_counted() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a.png", "a.json", "b.png"):
            archive.addfile(tarfile.TarInfo(name))
    assert sampling.count_in_tar(stream.getvalue()) == 2
    stream = io.BytesIO()
    np.savez(stream, seeds=np.arange(3), pixels=np.zeros((3, 2, 2, 1), np.uint8))
    assert sampling.count_in_npz(stream.getvalue()) == 3


def test_what_the_benchmark_of_a_gpu_runs_there_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BATCHES", (1, 8, 16))
    bundle = gpu.Bundle(ROOT / "models/fashion")
    run = gpu.runner(open_session(bundle.graph, "cpu"))
    assert gpu.determinism(run, bundle) == {1: 0, 8: 0, 16: 0}
