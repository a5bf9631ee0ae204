"""Tiny bundles, built with `onnx.helper`: no torch, no training, no network."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from service.app import create_app
from service.bundle import Bundle
from service.lifecycle import Lifecycle
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, SAMPLES_FILE, Manifest
from service.settings import Settings
from service.telemetry import Metrics

MakeBundle = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[TestClient]]


def build_graph(
    *, z_dim: int = 4, size: int = 8, channels: int = 3, num_classes: int = 0, truncation: bool = False
) -> onnx.ModelProto:
    """sigmoid(psi * z @ weights + embedding[y]) as uint8 pixels."""
    features = size * size * channels
    random = np.random.default_rng(0)
    constants = {
        "weights": random.standard_normal((z_dim, features), dtype=np.float32),
        "shape": np.array([-1, size, size, channels], np.int64),
        "white": np.float32(255),
    }
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", z_dim])]
    nodes, latent = [], "z"
    if truncation:
        inputs.append(helper.make_tensor_value_info("psi", TensorProto.FLOAT, ["N"]))
        constants["last_axis"] = np.array([1], np.int64)
        nodes += [
            helper.make_node("Unsqueeze", ["psi", "last_axis"], ["psi_column"]),
            helper.make_node("Mul", ["z", "psi_column"], ["truncated"]),
        ]
        latent = "truncated"
    nodes.append(helper.make_node("MatMul", [latent, "weights"], ["projected"]))
    logits = "projected"
    if num_classes:
        inputs.append(helper.make_tensor_value_info("y", TensorProto.INT64, ["N"]))
        constants["embedding"] = random.standard_normal((num_classes, features), dtype=np.float32)
        nodes += [
            helper.make_node("Gather", ["embedding", "y"], ["embedded"]),
            helper.make_node("Add", ["projected", "embedded"], ["conditioned"]),
        ]
        logits = "conditioned"
    nodes += [
        helper.make_node("Sigmoid", [logits], ["grey"]),
        helper.make_node("Mul", ["grey", "white"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "shape"], ["pixels"]),
    ]
    output = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, channels])
    graph = helper.make_graph(
        nodes, "tiny", inputs, [output], [numpy_helper.from_array(np.asarray(c), n) for n, c in constants.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def build_manifest(name: str, files: dict[str, bytes], **members: Any) -> Manifest:
    """A manifest that fits `build_graph()`, but for `members`."""
    return Manifest.model_validate(
        {
            "name": name,
            "version": "1",
            "task": "generate",
            "sha256": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
            "latent": {"z_dim": 4},
            "output": {"height": 8, "width": 8, "channels": 3},
            "recipe": {},
            "data": [],
            "licence": "CC0-1.0",
            "created_with": {},
            **members,
        }
    )


def write_bundle(
    models: Path, name: str, *, graph: dict[str, Any] | onnx.ModelProto | None = None, **members: Any
) -> Path:
    """Write `models/<name>`; `graph` goes to `build_graph`, the rest to the manifest."""
    directory = models / name
    directory.mkdir(parents=True)
    model = graph if isinstance(graph, onnx.ModelProto) else build_graph(**(graph or {}))
    files = {GENERATOR_FILE: model.SerializeToString(), SAMPLES_FILE: b"not looked at"}
    for file, content in files.items():
        (directory / file).write_bytes(content)
    (directory / MANIFEST_FILE).write_text(build_manifest(name, files, **members).to_json())
    return directory


DIGITS: dict[str, Any] = {
    "graph": {"num_classes": 3, "truncation": True, "channels": 1},
    "classes": ["zero", "one", "two"],
    "latent": {"z_dim": 4, "truncation": "z"},
    "output": {"height": 8, "width": 8, "channels": 1},
}


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """`write_bundle` below this test's `models` directory."""
    return partial(write_bundle, tmp_path / "models")


@pytest.fixture
def plain(make_bundle: MakeBundle) -> Path:
    """An unconditional bundle without truncation."""
    return make_bundle("plain")


@pytest.fixture
def digits(make_bundle: MakeBundle) -> Path:
    """A conditional bundle with truncation, grey."""
    return make_bundle("digits", **DIGITS)


@pytest.fixture(scope="session")
def make_bundle_in() -> MakeBundle:
    """`write_bundle`, for servers that several tests share."""
    return write_bundle


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, for tests that only read."""
    directory = tmp_path_factory.mktemp("read-only") / "models"
    write_bundle(directory, "plain")
    write_bundle(directory, "digits", **DIGITS)
    return directory


@pytest.fixture
def plain_bundle(plain: Path) -> Bundle:
    return Bundle.load(plain, provider="cpu")


@pytest.fixture
def digits_bundle(digits: Path) -> Bundle:
    return Bundle.load(digits, provider="cpu")


@pytest.fixture
def serve_loading(tmp_path: Path) -> Serve:
    """The application in this process, from the first moment; `settings` are those that differ."""

    @contextmanager
    def start(**settings: Any) -> Iterator[TestClient]:
        lifecycle = Lifecycle(Settings(models_dir=tmp_path / "models", **{"provider": "cpu", **settings}), Metrics())
        with TestClient(create_app(lifecycle)) as client:
            yield client

    return start


@pytest.fixture
def serve(serve_loading: Serve) -> Serve:
    """The application in this process, once its bundles are loaded."""

    @contextmanager
    def start(**settings: Any) -> Iterator[TestClient]:
        with serve_loading(**settings) as client:
            while "being loaded" in client.get("/readyz").text:
                time.sleep(0.001)
            yield client

    return start
