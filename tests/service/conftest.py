"""Tiny bundles, built with `onnx.helper`: no torch, no training, no network."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import pytest
import uvicorn
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from service.app import create_app
from service.bundle import Bundle
from service.catalog import Catalog
from service.connection import Connection
from service.errors import ModelFailure
from service.generator import Feed, Generator
from service.lifecycle import Lifecycle
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, SAMPLES_FILE, Manifest
from service.pixels import Pixels
from service.settings import Settings
from service.tasks import task_of
from service.telemetry import Metrics

MakeBundle = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[TestClient]]
Refusal = Callable[..., str]


def build_graph(
    *,
    z_dim: int = 4,
    size: int = 8,
    channels: int = 3,
    num_classes: int = 0,
    truncation: bool = False,
    moody: bool = False,
) -> onnx.ModelProto:
    """sigmoid(psi * z @ weights + embedding[y]) as uint8 pixels; `moody` adds rows / 10, which company changes."""
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
    if moody:
        constants["tenth"] = np.float32(0.1)
        nodes += [
            helper.make_node("Shape", ["z"], ["n"], start=0, end=1),
            helper.make_node("Cast", ["n"], ["rows"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["rows", "tenth"], ["mood"]),
            helper.make_node("Add", [logits, "mood"], ["moody"]),
        ]
        logits = "moody"
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


def build_translator(*, z_dim: int = 4, size: int | None = 8, target: int | None = None) -> onnx.ModelProto:
    """A picture to a picture, RGB.

    Args:
        z_dim: of z, whose projection is added to all pixels; 0 takes none.
        size: height and width; None takes every multiple of 4, and then a pixel depends on those up to 7 away.
        target: height and width of the output; None is those of the input.
    """
    random = np.random.default_rng(1)
    height, width = (size, size) if size else ("4*h", "4*w")
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, 3])]
    constants = {
        "scale": np.float32(1 / 255),
        "white": np.float32(255),
        "kernel": random.standard_normal((48, 48, 3, 3)).astype(np.float32) / 6,
        "enlarge": np.array(
            [1, 1, (target or size or 1) / (size or 1), (target or size or 1) / (size or 1)], np.float32
        ),
    }
    # A convolution over blocks of 4 x 4 pixels, whose zeros beyond the border show where a picture ends.
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["values"]),
        helper.make_node("Transpose", ["values"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("SpaceToDepth", ["planes"], ["blocks"], blocksize=4),
        helper.make_node("Conv", ["blocks", "kernel"], ["convolved"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["convolved"], ["logits"], blocksize=4),
    ]
    logits = "logits"
    if z_dim:
        inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", z_dim]))
        constants |= {"weights": random.standard_normal((z_dim, 3), np.float32), "last": np.array([2, 3], np.int64)}
        nodes += [
            helper.make_node("MatMul", ["z", "weights"], ["projected"]),
            helper.make_node("Unsqueeze", ["projected", "last"], ["style"]),
            helper.make_node("Add", [logits, "style"], ["styled"]),
        ]
        logits = "styled"
    nodes += [
        helper.make_node("Sigmoid", [logits], ["colours"]),
        helper.make_node("Resize", ["colours", "", "enlarge"], ["enlarged"], mode="nearest"),
        helper.make_node("Mul", ["enlarged", "white"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["pixels"], perm=[0, 2, 3, 1]),
    ]
    sides = [target or height, target or width]
    output = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *sides, 3])
    graph = helper.make_graph(
        nodes, "tiny", inputs, [output], [numpy_helper.from_array(np.asarray(c), n) for n, c in constants.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


FIXED: dict[str, Any] = {
    "graph": build_translator(),
    "task": "translate",
    "input": {"height": 8, "width": 8, "channels": 3, "background": [255, 0, 0]},
}
"""A translator of 8 x 8 pixels with z, on red."""
ANY: dict[str, Any] = {
    "graph": build_translator(z_dim=0, size=None),
    "task": "translate",
    "latent": None,
    "input": {"height": None, "width": None, "channels": 3, "multiple_of": 4, "halo": 7},
    "output": {"height": None, "width": None, "channels": 3, "multiple_of": 4},
}
"""A translator of any size, without z."""


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


@pytest.fixture(scope="session", name="write_bundle")
def give_write_bundle() -> MakeBundle:
    """`write_bundle`, for fixtures that last longer than a test."""
    return write_bundle


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


@pytest.fixture(scope="session", name="build_translator")
def give_build_translator() -> Callable[..., onnx.ModelProto]:
    """`build_translator`, for tests."""
    return build_translator


@pytest.fixture(scope="session")
def translators() -> dict[str, dict[str, Any]]:
    """What makes the two translators, for tests that change something."""
    return {"fixed": FIXED, "any": ANY}


@pytest.fixture
def fixed(make_bundle: MakeBundle) -> Path:
    """A translator of one size, with z."""
    return make_bundle("fixed", **FIXED)


@pytest.fixture
def any_size(make_bundle: MakeBundle) -> Path:
    """A translator of any size, without z."""
    return make_bundle("any", **ANY)


@pytest.fixture
def refusal(tmp_path: Path, plain: Path) -> Refusal:
    """Load a hostile bundle beside a good one, which must be served all the same; why the other one is not."""

    def load(**settings: Any) -> str:
        catalog = Catalog.load(tmp_path / "models", **settings)
        assert list(catalog.bundles) == ["plain"]
        good = catalog.bundles["plain"]
        assert good.picture(good.sample(seed=1)).shape == (8, 8, 3)
        (reason,) = catalog.refused.values()
        return reason

    return load


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all of them, for tests that only read."""
    directory = tmp_path_factory.mktemp("read-only") / "models"
    write_bundle(directory, "plain")
    write_bundle(directory, "digits", **DIGITS)
    write_bundle(directory, "fixed", **FIXED)
    write_bundle(directory, "any", **ANY)
    return directory


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def load() -> Iterator[Callable[..., Bundle]]:
    """Load a bundle, and end its threads with the test."""
    loaded = []

    def load(directory: Path, **settings: Any) -> Bundle:
        loaded.append(Bundle.load(directory, **settings))
        return loaded[-1]

    yield load
    for bundle in loaded:
        bundle.batcher.close()


def open_generator(directory: Path, **settings: Any) -> Generator:
    """A bundle's graph, without everything around it."""
    task = task_of(Manifest.read(directory))
    return Generator((directory / GENERATOR_FILE).read_bytes(), task, provider="cpu", **settings)


@pytest.fixture
def generator_of() -> Callable[..., Generator]:
    """`open_generator`, for tests."""
    return open_generator


@pytest.fixture
def plain_bundle(plain: Path, load: Callable[..., Bundle]) -> Bundle:
    return load(plain)


@pytest.fixture
def digits_bundle(digits: Path, load: Callable[..., Bundle]) -> Bundle:
    return load(digits)


def lifecycle_of(models: Path, **settings: Any) -> Lifecycle:
    """What `create_app` takes; `settings` are those that differ."""
    return Lifecycle(
        Settings(models_dir=models, **{"provider": "cpu", "processes": 0, "access_log": "all", **settings}), Metrics()
    )


@contextmanager
def serving(models: Path, **settings: Any) -> Iterator[TestClient]:
    """The application in this process, once its bundles are loaded."""
    with TestClient(create_app(lifecycle_of(models, **settings))) as client:
        while "being loaded" in client.get("/readyz").text:
            time.sleep(0.001)
        yield client


@pytest.fixture
def serve_loading(tmp_path: Path) -> Serve:
    """The application in this process, from the first moment; `settings` are those that differ."""

    @contextmanager
    def start(**settings: Any) -> Iterator[TestClient]:
        with TestClient(create_app(lifecycle_of(tmp_path / "models", **settings))) as client:
            yield client

    return start


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """The application in this process, once its bundles are loaded."""
    return partial(serving, tmp_path / "models")


@pytest.fixture(scope="session")
def serve_models(models: Path) -> Serve:
    """The same for the bundles in `models`, for fixtures that last longer than a test."""
    return partial(serving, models)


@pytest.fixture(scope="module")
def shared(serve_models: Serve) -> Iterator[TestClient]:
    """A running application for the tests of one file, which only ask."""
    with serve_models() as client:
        yield client


class Listening:
    """The application behind a real server on loopback, in a thread."""

    def __init__(self, models: Path, **settings: Any) -> None:
        self.lifecycle = lifecycle_of(models, **settings)
        self._server = uvicorn.Server(
            uvicorn.Config(create_app(self.lifecycle), http=Connection, port=0, log_config=None)
        )
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> "Listening":
        self._thread.start()
        wait_until(lambda: self._server.started)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        wait_until(lambda: self.client.get("/readyz").status_code == 200)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join()

    def stream(self, path: str, ask: dict[str, Any], **settings: Any) -> AbstractContextManager[httpx2.Response]:
        """A POST whose answer is read as it comes."""
        return self.client.stream("POST", path, json=ask, **settings)

    def ask(self, path: str, ask: dict[str, Any]) -> socket.socket:
        """A POST of a client that can leave: close the connection."""
        body = json.dumps(ask).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(head.encode() + body)
        return connection

    @property
    def waiting(self) -> int:
        """Rows in the queues of all bundles."""
        return sum(bundle.batcher.waiting for bundle in self.lifecycle.catalog.bundles.values())

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 if there is no such series."""
        return self.lifecycle.metrics.registry.get_sample_value(name, labels) or 0


@pytest.fixture
def listen(tmp_path: Path) -> Callable[..., Listening]:
    """Give this test's bundles a real server."""
    return partial(Listening, tmp_path / "models")


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    """Wait until it does; a busy machine is no failure."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """`wait_until`, for tests."""
    return wait_until


class Gate:
    """Stands before every run of a graph: holds it while closed, and fails it after so many if told to."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.reached = threading.Semaphore(0)
        self.rows: list[int] = []
        self.fails_after: int | None = None

    def method(self) -> Callable[[Generator, Feed], Pixels]:
        """What takes the place of `Generator.run`."""
        run = Generator.run

        def through(generator: Generator, feed: Feed) -> Pixels:
            self.rows.append(len(next(iter(feed.values()))))
            self.reached.release()
            assert self.opened.wait(60)
            if self.fails_after is not None and len(self.rows) > self.fails_after:
                raise ModelFailure("the generator failed")
            return run(generator, feed)

        return through


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Closed; it opens at the end of the test. Ask for it before the server, whose end waits for what runs."""
    gate = Gate()
    monkeypatch.setattr(Generator, "run", gate.method())
    yield gate
    gate.opened.set()
