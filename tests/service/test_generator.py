import re

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.errors import InvalidBundle, ModelFailure, NonFiniteOutput
from service.generator import Generator
from service.latents import draw
from service.manifest import GENERATOR_FILE, Manifest
from service.tasks import task_of


def test_gives_the_pixels_that_the_graph_describes(plain, generator_of):
    pixels = generator_of(plain).run({"z": np.zeros((2, 4), np.float32)})
    assert pixels.dtype == np.uint8
    assert pixels.shape == (2, 8, 8, 3)
    assert (pixels == 128).all()  # sigmoid(0) * 255 = 127.5, which rounds to even


def test_feeds_what_the_graph_takes(plain, digits, generator_of):
    assert list(generator_of(plain).task.feed([1, 2], [None, None], [1.0, 1.0])) == ["z"]
    feed = generator_of(digits).task.feed([1, 2], [0, 2], [1.0, 0.5])
    np.testing.assert_array_equal(feed["z"], draw([1, 2], 4))
    assert (feed["y"].tolist(), feed["y"].dtype) == ([0, 2], np.int64)
    assert (feed["psi"].tolist(), feed["psi"].dtype) == ([1.0, 0.5], np.float32)


def test_a_row_is_the_same_alone_and_in_company(digits, generator_of):
    generator = generator_of(digits)
    labels, psi = [0, 1, 2, 0, 1], [0.2, 0.4, 0.6, 0.8, 1.0]
    together = generator.run(generator.task.feed(range(5), labels, psi))
    for i in range(5):
        alone = generator.run(generator.task.feed([i], labels[i : i + 1], psi[i : i + 1]))
        np.testing.assert_array_equal(alone[0], together[i])


def test_psi_and_y_reach_the_graph(digits, generator_of):
    generator = generator_of(digits)

    def picture(label=0, psi=1.0):
        return generator.run(generator.task.feed([3], [label], [psi]))

    assert not np.array_equal(picture(), picture(label=1))
    assert not np.array_equal(picture(), picture(psi=0.5))


def test_rows_that_nothing_changes_are_run_in_any_number(plain, generator_of):
    generator = generator_of(plain)
    measured = generator.measured
    assert (measured.batch, measured.exact, measured.determinism) == (None, True, "exact; batch=free")
    assert generator.padding(5) == 0


PICTURE = [8, 8, 3]


def moody_graph(value, constants=(), n="N", dtype=TensorProto.FLOAT):
    """A graph whose pixels are all `value`, which the nodes compute from `n`, the number of rows, shape [1], and z."""
    z = helper.make_tensor_value_info("z", dtype, [n, 4])
    out = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *PICTURE])
    tensors = {"picture": PICTURE, "column": [-1, 1, 1, 1], **dict(constants)}
    nodes = [
        helper.make_node("Shape", ["z"], ["n"], start=0, end=1),
        *value,
        helper.make_node("Cast", ["value"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "column"], ["columns"]),
        helper.make_node("Concat", ["n", "picture"], ["size"], axis=0),
        helper.make_node("Expand", ["columns", "size"], ["pixels"]),
    ]
    initializers = [helper.make_tensor(k, TensorProto.INT64, [len(v)], v) for k, v in tensors.items()]
    graph = helper.make_graph(nodes, "moody", [z], [out], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


# All pixels are the number of rows in the run: what some kernels do, only louder.
COUNTS_ROWS = moody_graph([helper.make_node("Identity", ["n"], ["value"])])
# All pixels are the row's place in the run, which no batch size but 1 can hide.
COUNTS_PLACES = moody_graph(
    [
        helper.make_node("Squeeze", ["n"], ["rows"]),
        helper.make_node("Squeeze", ["zero"], ["first"]),
        helper.make_node("Squeeze", ["one"], ["step"]),
        helper.make_node("Range", ["first", "rows", "step"], ["value"]),
    ],
    {"zero": [0], "one": [1]},
)


def test_rows_that_the_batch_size_changes_are_run_in_one_size(make_bundle, generator_of):
    generator = generator_of(make_bundle("moody", graph=COUNTS_ROWS))
    assert generator.measured.determinism == "exact; batch=8"
    for count in (1, 7, 8, 9, 20):
        pixels = generator.run(generator.task.feed(range(count), [None] * count, [1.0] * count))
        assert pixels.shape == (count, *PICTURE)
        assert (pixels == 8).all()
        assert (count + generator.padding(count)) % 8 == 0


# What a kernel that takes twelve rows at a time might do with more of them.
TELLS_MORE_THAN_TWELVE = moody_graph(
    [
        helper.make_node("Greater", ["n", "twelve"], ["more"]),
        helper.make_node("Cast", ["more"], ["value"], to=TensorProto.INT64),
    ],
    {"twelve": [12]},
)


def test_rows_that_only_a_crowd_changes_are_not_run_in_one(make_bundle, generator_of):
    generator = generator_of(make_bundle("moody", graph=TELLS_MORE_THAN_TWELVE))
    assert generator.measured.determinism == "exact; batch=8"


def test_rows_that_their_place_changes_are_run_alone(make_bundle, generator_of):
    generator = generator_of(make_bundle("moody", graph=COUNTS_PLACES))
    assert generator.measured.determinism == "exact; batch=1"
    assert (generator.run(generator.task.feed(range(3), [None] * 3, [1.0] * 3)) == 0).all()


def test_what_is_never_the_same_is_unproven(make_bundle, generator_of):
    random = [helper.make_node("RandomUniform", [], ["value"], shape=[1], low=0.0, high=255.0)]
    with_noise = generator_of(make_bundle("noisy", graph=moody_graph(random)))
    assert with_noise.measured.determinism == "unproven; batch=1"


@pytest.mark.parametrize(
    ("graph", "members", "message"),
    [
        ({}, {"classes": ["a", "b"]}, "inputs are z; the manifest implies z, y"),
        ({"num_classes": 2}, {}, "inputs are z, y; the manifest implies z"),
        ({}, {"latent": {"z_dim": 4, "truncation": "w"}}, "implies z, psi"),
        ({}, {"latent": {"z_dim": 5}}, r"z has shape \['N', 4\]; the manifest implies \['N', 5\]"),
        ({"size": 16}, {}, "pixels has shape"),
        ({"channels": 1}, {}, "pixels has shape"),
        ({}, {"output": {"height": None, "width": 8, "channels": 3}}, "needs a height and a width"),
        ({"num_classes": 2}, {"classes": ["a", "b", "c"]}, "warming up: the generator failed"),
    ],
)
def test_refuses_a_graph_that_is_not_what_the_manifest_says(make_bundle, graph, members, message):
    directory = make_bundle("wrong", graph=graph, **members)
    model = (directory / GENERATOR_FILE).read_bytes()
    with pytest.raises(InvalidBundle, match=message):
        Generator(model, task_of(Manifest.read(directory)), provider="cpu")


@pytest.mark.parametrize(
    ("n", "dtype", "message"),
    [
        (2, TensorProto.FLOAT, "first size must be dynamic"),
        ("N", TensorProto.DOUBLE, r"the contract says tensor\(float\)"),
    ],
)
def test_refuses_a_fixed_batch_and_another_type(make_bundle, generator_of, n, dtype, message):
    with pytest.raises(InvalidBundle, match=message):
        generator_of(
            make_bundle("odd", graph=moody_graph([helper.make_node("Identity", ["n"], ["value"])], n=n, dtype=dtype))
        )


LOW = float(draw(range(32), 192).min()) - 1e-3
"""No seed below 32 draws a value so low."""


def finite_graph(dtype=TensorProto.BOOL, shape=("N",)):
    """The root of z - LOW as pixels, and whether it is a number."""
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 192])
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 8, 3])
    finite = helper.make_tensor_value_info("finite", dtype, shape)
    constants = [
        helper.make_tensor("low", TensorProto.FLOAT, [], [LOW]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("picture", TensorProto.INT64, [4], [-1, 8, 8, 3]),
    ]
    nodes = [
        helper.make_node("Sub", ["z", "low"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["values"]),
        helper.make_node("ReduceSum", ["values", "last"], ["sum"], keepdims=len(shape) - 1),
        helper.make_node("IsNaN", ["sum"], ["broken"]),
        helper.make_node("Not", ["broken"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["finite"], to=dtype),
        helper.make_node("Cast", ["values"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "picture"], ["pixels"]),
    ]
    graph = helper.make_graph(nodes, "finite", [z], [pixels, finite], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_what_is_not_finite_is_no_picture(make_bundle, generator_of):
    generator = generator_of(make_bundle("nan", graph=finite_graph(), latent={"z_dim": 192}))
    z = np.ones((3, 192), np.float32)
    assert generator.run({"z": z}).shape == (3, 8, 8, 3)
    z[1, 5] = LOW - 1
    with pytest.raises(NonFiniteOutput, match="NaN or infinity instead of a picture") as error:
        generator.run({"z": z})
    assert error.value.kind == "non-finite-output"
    assert error.value.status == 500
    assert generator.run({"z": z[2:]}).shape == (1, 8, 8, 3)


def test_over_http_it_is_a_problem_of_its_own(make_bundle, serve, caplog):
    make_bundle("nan", graph=finite_graph(), latent={"z_dim": 192})
    bad_seed = next(seed for seed in range(32, 9999) if draw([seed], 192).min() < LOW)
    with serve() as client:
        assert client.post("/generate", json={"seed": 31}).status_code == 200
        response = client.post("/generate", json={"seed": bad_seed})
        assert response.status_code == 500
        assert response.json()["type"] == "urn:ganery:problem:non-finite-output"
        assert re.search(rf"while computing g1\.[0-9a-f]{{16}}\.{bad_seed}\.-\.1000", caplog.text)
        assert "g1." not in response.text
        assert 'ganery_problems_total{kind="non-finite-output",model="nan"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (finite_graph(TensorProto.UINT8), r"finite is tensor\(uint8\); the contract says tensor\(bool\)"),
        (finite_graph(shape=("N", 1)), "finite has shape"),
    ],
)
def test_finite_is_one_boolean_for_each_row(make_bundle, generator_of, graph, message):
    with pytest.raises(InvalidBundle, match=message):
        generator_of(make_bundle("odd", graph=graph, latent={"z_dim": 192}))


def test_a_failing_run_keeps_its_cause(digits, generator_of):
    generator = generator_of(digits)
    with pytest.raises(ModelFailure, match="the generator failed") as error:
        generator.run(generator.task.feed([0], [99], [1.0]))
    assert error.value.__cause__ is not None
