import numpy as np
import pytest
from onnx import TensorProto, helper

from service.bundle import Bundle
from service.errors import InvalidBundle, ModelFailure, NonFiniteOutput
from service.generator import Generator
from service.latents import draw
from service.manifest import GENERATOR_FILE, Manifest

ONE = np.ones(1, np.float32)


def test_gives_the_pixels_that_the_graph_describes(plain_bundle):
    z = np.zeros((2, 4), np.float32)
    pixels = plain_bundle.generator.pixels(z, None, np.ones(2, np.float32))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (2, 8, 8, 3)
    assert (pixels == 128).all()  # sigmoid(0) * 255 = 127.5, which rounds to even


def test_a_row_is_the_same_alone_and_in_company(digits_bundle):
    z, y, psi = draw(range(5), 4), np.array([0, 1, 2, 0, 1]), np.linspace(0.2, 1, 5, dtype=np.float32)
    together = digits_bundle.generator.pixels(z, y, psi)
    for i in range(5):
        alone = digits_bundle.generator.pixels(z[i : i + 1], y[i : i + 1], psi[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])


def test_psi_and_y_reach_the_graph(digits_bundle):
    run = digits_bundle.generator.pixels
    z = draw([3], 4)
    assert not np.array_equal(run(z, np.array([0]), ONE), run(z, np.array([1]), ONE))
    assert not np.array_equal(run(z, np.array([0]), ONE), run(z, np.array([0]), ONE / 2))


def moody_graph(n="N", dtype=TensorProto.FLOAT):
    """All pixels are 100, or 200 if the row is alone: what some kernels do, only louder."""
    z = helper.make_tensor_value_info("z", dtype, [n, 4])
    out = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 8, 3])
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("picture", TensorProto.INT64, [3], [8, 8, 3]),
        helper.make_tensor("alone", TensorProto.UINT8, [1], [200]),
        helper.make_tensor("company", TensorProto.UINT8, [1], [100]),
    ]
    nodes = [
        helper.make_node("Shape", ["z"], ["n"], start=0, end=1),
        helper.make_node("Equal", ["n", "one"], ["is_alone"]),
        helper.make_node("Where", ["is_alone", "alone", "company"], ["value"]),
        helper.make_node("Concat", ["n", "picture"], ["size"], axis=0),
        helper.make_node("Expand", ["value", "size"], ["pixels"]),
    ]
    graph = helper.make_graph(nodes, "moody", [z], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_graph_that_differs_alone_is_never_run_alone(make_bundle):
    generator = Bundle.load(make_bundle("moody", graph=moody_graph())).generator
    assert not generator.rows_match
    pixels = generator.pixels(draw([7], 4), None, ONE)
    assert pixels.shape == (1, 8, 8, 3)
    assert (pixels == 100).all()


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
        Generator(model, Manifest.read(directory), provider="cpu")


@pytest.mark.parametrize(
    ("n", "dtype", "message"),
    [
        (2, TensorProto.FLOAT, "first size must be dynamic"),
        ("N", TensorProto.DOUBLE, r"the contract says tensor\(float\)"),
    ],
)
def test_refuses_a_fixed_batch_and_another_type(make_bundle, n, dtype, message):
    with pytest.raises(InvalidBundle, match=message):
        Bundle.load(make_bundle("odd", graph=moody_graph(n, dtype)))


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


def test_what_is_not_finite_is_no_picture(make_bundle):
    generator = Bundle.load(make_bundle("nan", graph=finite_graph(), latent={"z_dim": 192})).generator
    z = np.ones((3, 192), np.float32)
    assert generator.pixels(z, None, np.ones(3, np.float32)).shape == (3, 8, 8, 3)
    z[1, 5] = LOW - 1
    with pytest.raises(NonFiniteOutput, match="NaN or infinity instead of a picture") as error:
        generator.pixels(z, None, np.ones(3, np.float32))
    assert error.value.kind == "non-finite-output"
    assert error.value.status == 500
    assert generator.pixels(z[2:], None, ONE).shape == (1, 8, 8, 3)


def test_over_http_it_is_a_problem_of_its_own(make_bundle, serve):
    make_bundle("nan", graph=finite_graph(), latent={"z_dim": 192})
    bad_seed = next(seed for seed in range(32, 9999) if draw([seed], 192).min() < LOW)
    with serve() as client:
        assert client.post("/generate", json={"seed": 31}).status_code == 200
        response = client.post("/generate", json={"seed": bad_seed})
        assert response.status_code == 500
        assert response.json()["type"] == "urn:ganery:problem:non-finite-output"
        assert 'ganery_problems_total{kind="non-finite-output",model="nan"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (finite_graph(TensorProto.UINT8), r"finite is tensor\(uint8\); the contract says tensor\(bool\)"),
        (finite_graph(shape=("N", 1)), "finite has shape"),
    ],
)
def test_finite_is_one_boolean_for_each_row(make_bundle, graph, message):
    with pytest.raises(InvalidBundle, match=message):
        Bundle.load(make_bundle("odd", graph=graph, latent={"z_dim": 192}))


def test_a_failing_run_keeps_its_cause(digits_bundle):
    with pytest.raises(ModelFailure, match="the generator failed") as error:
        digits_bundle.generator.pixels(draw([0], 4), np.array([99]), ONE)
    assert error.value.__cause__ is not None
