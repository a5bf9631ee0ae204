import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import InvalidBundle
from service.graph_check import OPERATORS, SIZE_ARITHMETIC, SIZE_OPERANDS, check_graph


@pytest.fixture
def model(plain):
    """The graph of a good bundle, for a test to spoil."""
    return onnx.load(plain / "generator.onnx")


def insert(model, *nodes):
    """Put nodes in front, and the last one's output beside the graph's own."""
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])


def constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))


def graph_of_nothing():
    return helper.make_graph([], "empty", [], [])


def external_initialiser(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_data_without_saying_so(model):
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def external_constant(model):
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
    tensor.data_location = TensorProto.EXTERNAL
    insert(model, helper.make_node("Constant", [], ["c"], value=tensor))


def external_tensors(model):
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
    tensor.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Identity", ["z"], ["c"])
    node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    insert(model, node)


def sparse():
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0])
    return helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [4])


def sparse_initialiser(model):
    model.graph.sparse_initializer.append(sparse())


def sparse_constant(model):
    insert(model, helper.make_node("Constant", [], ["c"], sparse_value=sparse()))


def loop(model):
    insert(model, helper.make_node("Loop", ["", "", "z"], ["c"], body=graph_of_nothing()))


def scan(model):
    insert(model, helper.make_node("Scan", ["z"], ["c"], body=graph_of_nothing(), num_scan_inputs=1))


def if_(model):
    empty = graph_of_nothing()
    insert(model, helper.make_node("If", ["z"], ["c"], then_branch=empty, else_branch=empty))


def hidden_graph(model):
    insert(model, helper.make_node("Identity", ["z"], ["c"], body=graph_of_nothing()))


def hidden_graphs(model):
    insert(model, helper.make_node("Identity", ["z"], ["c"], bodies=[graph_of_nothing()]))


def random(model):
    insert(model, helper.make_node("RandomNormal", [], ["c"], shape=[4]))


def dropout(model):
    insert(model, helper.make_node("Dropout", ["z"], ["c"]))


def unknown_operator(model):
    insert(model, helper.make_node("NonZero", ["z"], ["c"]))


def custom_operator(model):
    insert(model, helper.make_node("Evil", ["z"], ["c"], domain="com.evil"))


def contrib_operator(model):
    insert(model, helper.make_node("Gelu", ["z"], ["c"], domain="com.microsoft"))


def custom_domain(model):
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def function(model):
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "Abs", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))


def training_graph(model):
    model.training_info.add()


def size_of_data(model):
    constant(model, "one", np.float32(1))
    insert(
        model,
        helper.make_node("ReduceSum", ["z"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "axis"], ["size"]),
        helper.make_node("Expand", ["one", "size"], ["c"]),
    )
    constant(model, "axis", [0])


def size_of_a_comparison(model):
    for name, value in {"seven": [7], "much": [10**12], "little": [1], "one": np.float32(1)}.items():
        constant(model, name, value)
    insert(
        model,
        helper.make_node("Shape", ["z"], ["n"], end=1),
        helper.make_node("Equal", ["n", "seven"], ["bad_day"]),
        helper.make_node("Where", ["bad_day", "much", "little"], ["size"]),
        helper.make_node("Expand", ["one", "size"], ["c"]),
    )


def size_of_an_unknown_name(model):
    insert(model, helper.make_node("ConstantOfShape", ["defined_later"], ["c"]))


def defined_twice(model):
    insert(model, helper.make_node("Identity", ["z"], ["weights"]))


HOSTILE = [
    (external_initialiser, "the weights 'weights' lie outside the file"),
    (external_data_without_saying_so, "lie outside the file"),
    (external_constant, "the weights 't' lie outside the file"),
    (external_tensors, "the weights 't' lie outside the file"),
    (sparse_initialiser, "sparse initialisers"),
    (sparse_constant, "sparse tensor"),
    (loop, "the operator 'Loop': control flow may run without end"),
    (scan, "the operator 'Scan': control flow"),
    (if_, "the operator 'If': control flow"),
    (hidden_graph, "holds a graph"),
    (hidden_graphs, "holds a graph"),
    (random, "the operator 'RandomNormal': randomness inside the graph"),
    (dropout, "the operator 'Dropout': randomness"),
    (unknown_operator, "the operator 'NonZero': it is not among those"),
    (custom_operator, "operators of 'com.evil'"),
    (contrib_operator, "operators of 'com.microsoft'"),
    (custom_domain, "operators of 'com.evil'"),
    (function, "functions of its own"),
    (training_graph, "a graph for training"),
    (size_of_data, r"(Expand) takes a size from data"),
    (size_of_a_comparison, r"(Expand) takes a size from data"),
    (size_of_an_unknown_name, r"(ConstantOfShape) takes a size from data"),
    (defined_twice, "defines 'weights' twice"),
]


@pytest.mark.parametrize(("spoil", "message"), HOSTILE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_hostile_graph_is_refused_beside_a_good_one(model, spoil, message, make_bundle, refusal):
    spoil(model)
    make_bundle("evil", graph=model)
    assert message in refusal()


@pytest.mark.parametrize("content", [b"x", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x3a\x03\x0a\x05"])
def test_what_is_no_model_is_refused(content):
    with pytest.raises(InvalidBundle, match="no ONNX model"):
        check_graph(content)


def test_sizes_may_follow_from_the_batch(model):
    for name, value in {"picture": [8, 8, 3], "one": np.float32(1), "first": [0], "two": [2]}.items():
        constant(model, name, value)
    insert(
        model,
        helper.make_node("Shape", ["z"], ["shape_of_z"]),
        helper.make_node("Gather", ["shape_of_z", "first"], ["n"]),
        helper.make_node("Mul", ["n", "two"], ["twice"]),
        helper.make_node("Concat", ["twice", "picture"], ["size"], axis=0),
        helper.make_node("Expand", ["one", "size"], ["c"]),
        helper.make_node("Resize", ["c", "", "", "size"], ["d"]),
    )
    check_graph(model.SerializeToString())


def test_the_lists_name_operators_that_exist():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert known >= OPERATORS
    assert set(SIZE_OPERANDS) | SIZE_ARITHMETIC <= OPERATORS


def test_every_operator_whose_sizes_an_input_chooses_is_listed():
    """ONNX calls such inputs shape, axes, sizes, and so on; a new operator of the list must be looked at."""
    names = {"shape", "axes", "sizes", "scales", "repeats", "pads", "starts", "ends", "steps", "split", "depth", "K",
             "start", "limit", "delta", "size", "roi"}  # fmt: skip
    for schema in onnx.defs.get_all_schemas():
        if schema.domain == "" and schema.name in OPERATORS:
            for index, operand in enumerate(schema.inputs):
                if operand.name in names and schema.name != "Attention":  # its K is a key
                    assert index in SIZE_OPERANDS.get(schema.name, ()), (schema.name, operand.name)
