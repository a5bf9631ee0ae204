"""Torch modules to ONNX files: one file, dynamic batch, checked."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from service.errors import InvalidBundle
from service.graph_check import check_graph
from training.files import written_aside

OPSET = 20
MAX_SIDE = 1 << 13


class ExportError(Exception):
    """A network that cannot become a bundle; the message says why."""


def _size(name: str, multiple_of: int) -> Any:
    """A dynamic size; the file says `4*height` of one that must be a multiple of 4."""
    size = torch.export.Dim(name, min=1, max=MAX_SIDE // multiple_of)
    return size if multiple_of == 1 else multiple_of * size


def write_onnx(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    *,
    free_axes: Mapping[str, Mapping[int, tuple[str, int]]] = MappingProxyType({}),
) -> None:
    """Export a module in evaluation mode and check the file; written aside, then moved.

    Args:
        inputs: forward's arguments by name, two rows each; the first axis becomes dynamic.
        outputs: names of what forward returns.
        free_axes: input -> axis -> name of its size and what that must be a multiple of; these become dynamic too.

    Raises:
        ExportError: if a weight is not finite, or the graph is not valid ONNX or nothing that a service runs.
    """
    broken = [name for name, tensor in module.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ExportError(f"NaN or infinity in {', '.join(broken[:5])}; go back to a state before the run diverged")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nobody needs here
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    shapes = {
        name: {0: batch, **{axis: _size(*size) for axis, size in free_axes.get(name, {}).items()}} for name in inputs
    }
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's exporter warns of its own future
        program = torch.onnx.export(
            module.eval(),
            (),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.producer_name, model.doc_string = "ganery", ""
    for node in model.graph.node:
        # The exporter notes file names and stack traces of this machine.
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    content = model.SerializeToString(deterministic=True)
    try:
        check_graph(content)
    except InvalidBundle as error:
        raise ExportError(
            f"no service would run it: {error}. Make the network of other layers; or, if the operator does nothing but "
            "arithmetic, add it to those of service/graph_check.py"
        ) from error
    with written_aside(path) as aside:
        aside.write_bytes(content)
