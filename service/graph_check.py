"""Whether a graph may be run: known operators, everything inside the file, no size that data choose.

It reads the file without running it. What it takes does end, and does nothing but arithmetic; how long that takes and
how much memory it needs is for `compute_process.py` to find out.

The reader is the `onnx` package, imported on demand: 90 ms and 11 MB that only the process of the trial pays.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from service.errors import InvalidBundle

DOMAINS = ("", "ai.onnx")

OPERATORS_BY_SUBJECT = {
    "arithmetic": "Abs Add Ceil Clip Cos CumSum Div Einsum Erf Exp Floor Gemm Log MatMul Max Mean Min Mod Mul Neg Pow "
    "Reciprocal Round Sign Sin Sqrt Sub Sum",
    "comparison": "And ArgMax ArgMin Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or TopK Where Xor",
    "activation": "Celu Elu Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Mish PRelu Relu Selu Sigmoid Softmax "
    "Softplus Softsign Swish Tanh ThresholdedRelu",
    "layers": "Attention AveragePool BatchNormalization Conv ConvTranspose GlobalAveragePool GlobalMaxPool "
    "GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization MaxPool "
    "MeanVarianceNormalization RMSNormalization",
    "reduction": "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare",
    "layout": "AffineGrid CenterCropPad Concat DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND "
    "GridSample Identity OneHot Pad Reshape Resize ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Tile "
    "Transpose Trilu Unsqueeze Upsample",
    "types, constants, sizes": "Cast CastLike Constant ConstantOfShape Range Shape Size",
    "eight bits": "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul "
    "QuantizeLinear",
}
"""What training exports, and what other deterministic makers of pictures need."""
OPERATORS = frozenset(name for names in OPERATORS_BY_SUBJECT.values() for name in names.split())

REASONS = {
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), "control flow may run without end"),
    **dict.fromkeys(
        (
            "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
            "RandomUniformLike",
        ),
        "randomness inside the graph breaks the promise of one seed, one picture; it comes in as z",
    ),
}  # fmt: skip

SIZE_OPERANDS = {
    "AffineGrid": (1,), "CenterCropPad": (1,), "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3),
    "Range": (0, 1, 2), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,),
    "Tile": (1,), "TopK": (1,), "Unsqueeze": (1,), "Upsample": (1,),
    **{name: (1,) for name in OPERATORS if name.startswith("Reduce")},
}  # fmt: skip
"""Operator -> its inputs that choose a size."""

SIZE_ARITHMETIC = frozenset(
    ["Abs", "Add", "Cast", "Ceil", "Concat", "Div", "Floor", "Gather", "Identity", "Max", "Min", "Mul", "Neg", "Range",
     "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze"]
)  # fmt: skip
"""Operators that may compute a size from other sizes. No comparison: a size must not be one thing for this batch and
another for that."""


class _Origin(IntEnum):
    """What a value depends on, at most."""

    CONSTANT = 0
    SIZES = 1
    DATA = 2


def check_graph(content: bytes) -> None:
    """Pass if the graph may be opened and run.

    Args:
        content: of a `.onnx` file.

    Raises:
        InvalidBundle: if it is no ONNX model, or holds what is not allowed; the message names it.
    """
    import onnx  # noqa: PLC0415
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise InvalidBundle("generator.onnx is no ONNX model") from error
    for opset in model.opset_import:
        _check_domain(opset.domain)
    if model.functions:
        raise InvalidBundle("the graph defines functions of its own; export it with them inlined")
    if model.training_info:
        raise InvalidBundle("the file holds a graph for training; export the generator alone")
    _check_graph(model.graph)


def _check_graph(graph: Any) -> None:
    if graph.sparse_initializer:
        raise InvalidBundle("the graph has sparse initialisers; export them dense")
    origins: dict[str, _Origin] = {}
    for tensor in graph.initializer:
        _check_tensor(tensor)
        _define(tensor.name, _Origin.CONSTANT, origins)
    for value in graph.input:
        origins[value.name] = _Origin.DATA  # an initialiser of that name would only be its default
    for node in graph.node:
        _check_node(node)
        inputs = [origins.get(name, _Origin.DATA) for name in node.input if name]
        for index in SIZE_OPERANDS.get(node.op_type, ()):
            if index < len(node.input) and node.input[index]:
                _check_size(node, origins.get(node.input[index], _Origin.DATA))
        for name in node.output:
            if name:
                _define(name, _origin(node.op_type, inputs), origins)


def _origin(op_type: str, inputs: Iterable[_Origin]) -> _Origin:
    if op_type in ("Shape", "Size"):
        return _Origin.SIZES
    origin = max(inputs, default=_Origin.CONSTANT)
    return _Origin.DATA if origin is _Origin.SIZES and op_type not in SIZE_ARITHMETIC else origin


def _define(name: str, origin: _Origin, origins: dict[str, _Origin]) -> None:
    if name in origins:
        raise InvalidBundle(f"the graph defines {name!r} twice")
    origins[name] = origin


def _check_size(node: Any, origin: _Origin) -> None:
    if origin is _Origin.DATA:
        raise InvalidBundle(
            f"node {node.name!r} ({node.op_type}) takes a size from data; sizes follow from the batch's alone"
        )


def _check_node(node: Any) -> None:
    _check_domain(node.domain)
    if node.op_type not in OPERATORS:
        reason = REASONS.get(node.op_type, "it is not among those that makers of pictures need")
        raise InvalidBundle(f"the graph uses the operator {node.op_type!r}: {reason}")
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise InvalidBundle(f"node {node.name!r} ({node.op_type}) holds a graph; control flow may run without end")
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise InvalidBundle(f"node {node.name!r} ({node.op_type}) holds a sparse tensor; export it dense")
        if attribute.HasField("t"):
            _check_tensor(attribute.t)
        for tensor in attribute.tensors:
            _check_tensor(tensor)


def _check_tensor(tensor: Any) -> None:
    if tensor.data_location or tensor.external_data:
        raise InvalidBundle(f"the weights {tensor.name!r} lie outside the file; export them inside")


def _check_domain(domain: str) -> None:
    if domain not in DOMAINS:
        raise InvalidBundle(f"the graph uses operators of {domain!r}; only those of ONNX itself are served")
