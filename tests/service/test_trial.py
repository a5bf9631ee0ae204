import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.bundle import Bundle
from service.errors import InvalidBundle
from service.trial import Trial

MANY = 10**10


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with Trial(seconds=60, max_bytes=256 * 2**20) as trial:
        yield trial


def graph(nodes, constants, weights=None, picture=(8, 8, 3)):
    """z @ weights + extra as pixels, where `nodes` make extra, a float of no dimensions."""
    constants = {
        "weights": np.zeros((4, 192), np.float32) if weights is None else weights,
        "shape": np.array([-1, *picture]),
        **constants,
    }
    return helper.make_model(
        helper.make_graph(
            [
                *nodes,
                helper.make_node("MatMul", ["z", "weights"], ["projected"]),
                helper.make_node("Add", ["projected", "extra"], ["sum"]),
                helper.make_node("Cast", ["sum"], ["bytes"], to=TensorProto.UINT8),
                helper.make_node("Reshape", ["bytes", "shape"], ["pixels"]),
            ],
            "hostile",
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", "C"])],
            [
                value if hasattr(value, "dims") else numpy_helper.from_array(np.asarray(value), name)
                for name, value in constants.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


NO_EXTRA = {"extra": np.float32(0)}
LARGEST = helper.make_node("ReduceMax", ["much"], ["extra"], keepdims=0)


def huge_constant():
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    return graph([helper.make_node("ConstantOfShape", ["size"], ["much"], value=value), LARGEST], {"size": [MANY]})


def huge_expand():
    return graph(
        [helper.make_node("Expand", ["one", "size"], ["much"]), LARGEST], {"one": np.float32(1), "size": [MANY]}
    )


def huge_tile():
    nodes = [helper.make_node("Tile", ["one", "size"], ["much"]), LARGEST]
    return graph(nodes, {"one": np.ones(1, np.float32), "size": [5 * 10**8]})  # above a billion ONNX Runtime refuses


def huge_range():
    constants = {"start": np.float32(0), "limit": np.float32(MANY), "delta": np.float32(1)}
    return graph([helper.make_node("Range", list(constants), ["much"]), LARGEST], constants)


def huge_resize():
    nodes = [helper.make_node("Resize", ["one", "", "", "sizes"], ["much"]), LARGEST]
    return graph(nodes, {"one": np.ones((1, 1, 1, 1), np.float32), "sizes": [1, 1, 10**5, 10**5]})


def huge_pad():
    nodes = [helper.make_node("Pad", ["one", "pads"], ["much"]), LARGEST]
    return graph(nodes, {"one": np.ones(1, np.float32), "pads": [0, MANY]})


def huge_product():
    """A column times a row: neither is large."""
    nodes = [
        helper.make_node("ConstantOfShape", ["column"], ["a"]),
        helper.make_node("ConstantOfShape", ["row"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["much"]),
        LARGEST,
    ]
    return graph(nodes, {"column": [10**5, 1], "row": [1, 10**5]})


def huge_for_a_batch_that_is_large():
    """N to the sixth: 64 values for two pictures, 10**9 for thirty-two."""
    nodes = [
        helper.make_node("Shape", ["z"], ["n"], end=1),
        helper.make_node("Concat", ["n"] * 6, ["size"], axis=0),
        helper.make_node("Expand", ["one", "size"], ["much"]),
        LARGEST,
    ]
    return graph(nodes, {"one": np.float32(1)})


def overflowing_size():
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    size = {"size": [2**32, 2**32, 2**32]}
    return graph([helper.make_node("ConstantOfShape", ["size"], ["much"], value=value), LARGEST], size)


def negative_size():
    return graph([helper.make_node("ConstantOfShape", ["size"], ["much"]), LARGEST], {"size": [-5]})


def weights_of_shape(*dims):
    def build():
        weights = numpy_helper.from_array(np.zeros((4, 192), np.float32), "weights")
        weights.dims[:] = dims
        return graph([], NO_EXTRA, weights)

    return build


def another_picture():
    """Thrice the rows, each a third of what the manifest says."""
    return graph([], NO_EXTRA, picture=(8, 8, 1))


def broken_for_a_batch_that_is_large():
    nodes = [
        helper.make_node("Shape", ["z"], ["n"], end=1),
        helper.make_node("Gather", ["table", "n"], ["extra"]),
    ]
    return graph(nodes, {"table": np.zeros(9, np.float32)})


MEMORY = "needs more than 268435456 bytes of memory"

HOSTILE = {
    huge_constant: MEMORY,
    huge_expand: MEMORY,
    huge_tile: MEMORY,
    huge_range: MEMORY,
    huge_resize: MEMORY,
    huge_pad: MEMORY,
    huge_product: MEMORY,
    huge_for_a_batch_that_is_large: f"{MEMORY} for 32 pictures",
    overflowing_size: "rows",
    negative_size: "ONNX Runtime does not load the graph",
    weights_of_shape(4, -192): "ONNX Runtime does not load the graph",
    weights_of_shape(0, 192): "ONNX Runtime does not load the graph",
    weights_of_shape(4, 2**62): "ONNX Runtime does not load the graph",
    weights_of_shape(2**40, 2**40, 2**40): "ONNX Runtime does not load the graph",
    another_picture: "pixels has shape",
    broken_for_a_batch_that_is_large: "the graph fails on 32 rows",
}


@pytest.mark.parametrize(("build", "message"), HOSTILE.items())
def test_a_hostile_graph_is_refused_beside_a_good_one(trial, build, message, make_bundle, refusal):
    make_bundle("evil", graph=build())
    began = time.monotonic()
    assert message in refusal(check=trial)
    assert time.monotonic() - began < 30


def test_a_graph_that_computes_for_hours_is_ended(make_bundle, refusal):
    size = [3000, 3000]
    products = [
        helper.make_node("MatMul", ["square" if i == 0 else f"p{i}", "square"], [f"p{i + 1}"]) for i in range(5000)
    ]
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["square"]),
        *products,
        helper.make_node("ReduceMax", ["p5000"], ["extra"], keepdims=0),
    ]
    make_bundle("evil", graph=graph(nodes, {"size": size}))
    began = time.monotonic()
    with Trial(seconds=8, max_bytes=2**30) as trial:
        assert "took more than the 8 seconds of SERVICE_TRIAL_SECONDS" in refusal(check=trial)
    assert time.monotonic() - began < 40


def test_a_process_that_is_gone_is_replaced(plain):
    with Trial(seconds=60, max_bytes=2**30) as trial:
        for _ in range(2):
            Bundle.load(plain, check=trial)
            trial._process.kill()
        Bundle.load(plain, check=trial)


def test_a_graph_that_ends_the_process_is_refused(plain, monkeypatch):
    monkeypatch.setattr("service.trial.COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    with (
        Trial(seconds=60, max_bytes=2**30) as trial,
        pytest.raises(InvalidBundle, match="ends the process that tries it"),
    ):
        Bundle.load(plain, check=trial)


def test_a_process_that_cannot_be_started_refuses_everything(plain, monkeypatch):
    monkeypatch.setattr("service.trial.COMMAND", (str(plain / "no-such-program"),))
    with Trial(seconds=60, max_bytes=2**30) as trial, pytest.raises(InvalidBundle, match="SERVICE_TRIAL_SECONDS=0"):
        Bundle.load(plain, check=trial)


def test_nothing_is_left_running(plain):
    with Trial(seconds=60, max_bytes=2**30) as trial:
        Bundle.load(plain, check=trial)
        process = trial._process
    assert process.returncode is not None


def test_the_service_tries_its_bundles(make_bundle, plain, serve):
    make_bundle("evil", graph=huge_constant())
    with serve(trial_seconds=60, trial_bytes=2**28) as client:
        (refused,) = client.get("/models").json()["refused"]
        assert MEMORY in refused["reason"]
        assert 'ganery_bundle_up{model="evil"} 0.0' in client.get("/metrics").text
        assert client.post("/generate", json={"model": "plain"}).status_code == 200
        assert client.post("/generate", json={"model": "evil"}).status_code == 503
