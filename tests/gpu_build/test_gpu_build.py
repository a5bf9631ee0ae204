"""The choice of the hardware by the real `onnxruntime-gpu`, on a machine with or without a GPU: `make gpu-build-test`.

It claims to have CUDA wherever it is installed, and falls back to the CPU without an error.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.catalog import Catalog
from service.cuda import why_not
from service.engine import Here
from service.errors import ModelFailure
from service.loading import engine_of
from service.runtime import CPU, CUDA, compiled_providers, conflicting_builds, missing_for_cuda, open_session
from service.settings import Settings

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
GRAPH = (MODELS / "fashion" / "generator.onnx").read_bytes()

pytestmark = pytest.mark.skipif(CUDA not in compiled_providers(), reason="needs onnxruntime-gpu: make gpu-build-test")


@pytest.fixture(scope="module")
def has_gpu():
    return open_session(GRAPH, "auto").get_providers()[0] == CUDA


@pytest.fixture
def _without_gpu(has_gpu):
    if has_gpu:
        pytest.skip("there is a GPU here; `python -m benchmarks.gpu` is for it")


def test_one_build_is_installed():
    assert conflicting_builds() == []


@pytest.mark.usefixtures("_without_gpu")
def test_the_build_claims_what_it_does_not_have():
    assert compiled_providers()[:2] == ["TensorrtExecutionProvider", CUDA]
    assert open_session(GRAPH, "auto").get_providers() == [CPU]


@pytest.mark.usefixtures("_without_gpu")
def test_the_missing_library_is_named():
    import onnxruntime  # noqa: PLC0415

    assert ".so" in why_not(onnxruntime)
    assert missing_for_cuda() == why_not(onnxruntime)


@pytest.mark.usefixtures("_without_gpu")
def test_cuda_that_was_asked_for_is_refused_with_the_reason():
    with pytest.raises(ModelFailure, match=r"fell back to CPUExecutionProvider: lib\w+\.so.*cannot open"):
        open_session(GRAPH, "cuda")


@pytest.mark.usefixtures("_without_gpu")
@pytest.mark.parametrize("buffers", ["0", "1"])
def test_auto_serves_from_the_cpu_what_was_exported(monkeypatch, buffers):
    monkeypatch.setenv("SERVICE_CUDA_BUFFERS", buffers)
    engine = Here("auto")
    catalog = Catalog.load(MODELS, engine=engine)
    bundle = catalog.get("fashion", task="generate")
    assert bundle.measured.provider == CPU
    assert (bundle.golden.result, bundle.measured.determinism) == ("matches", "exact; batch=free")
    bundle.batcher.close()


@pytest.mark.usefixtures("_without_gpu")
def test_a_process_that_computes_refuses_too():
    """Its standard error goes nowhere, so the reason must be in the refusal."""
    engine = engine_of(Settings(provider="cuda", processes=1))
    try:
        catalog = Catalog.load(MODELS, engine=engine)
    finally:
        engine.close()
    assert not catalog.bundles
    assert "fell back to CPUExecutionProvider: lib" in catalog.refused["fashion"]


@pytest.mark.usefixtures("_without_gpu")
@pytest.mark.parametrize(("provider", "word"), [("cuda", "PROBLEM: no CUDA: lib"), ("auto", "note: no CUDA: lib")])
def test_the_doctor_tells(provider, word):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SERVICE_MODELS_DIR": str(MODELS)}
    command = [sys.executable, "-m", "service", "doctor"]
    ended = subprocess.run(
        command, env={**environment, "SERVICE_PROVIDER": provider}, capture_output=True, text=True, check=False
    )
    assert word in ended.stdout
    assert ended.returncode == ("PROBLEM" in word)


@pytest.mark.usefixtures("_without_gpu")
def test_the_benchmark_says_that_it_has_not_measured():
    command = [sys.executable, "-m", "benchmarks.gpu"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "NOT MEASURED: SERVICE_PROVIDER=cuda, but ONNX Runtime fell back" in ended.stderr
