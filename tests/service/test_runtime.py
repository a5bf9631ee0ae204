import subprocess
import sys
from importlib import metadata

import onnxruntime
import pytest
from onnx import TensorProto, helper

from service import runtime
from service.errors import InvalidBundle, ModelFailure
from service.runtime import conflicting_builds, open_session


def add_graph(weights):
    """x + weights."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "weights"], ["out"])], "add", [x], [out], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_opens_a_graph_and_says_where_it_runs():
    session = open_session(add_graph(helper.make_tensor("weights", TensorProto.FLOAT, [4], [1, 2, 3, 4])), "cpu")
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_no_sum_depends_on_how_many_cpus_there_are():
    assert runtime.cpu_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_weights_outside_the_graph_are_not_read(tmp_path, monkeypatch, location):
    (tmp_path / "inner").mkdir()
    for place in (tmp_path, tmp_path / "inner"):
        (place / "weights.bin").write_bytes(bytes(16))
    monkeypatch.chdir(tmp_path / "inner")
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    with pytest.raises(InvalidBundle, match="does not load"):
        open_session(add_graph(weights), "cpu")


def test_a_file_that_is_no_graph():
    with pytest.raises(InvalidBundle, match="does not load"):
        open_session(b"nonsense", "cpu")


def test_a_file_in_the_runtimes_own_format_is_none(tmp_path):
    """It would be run as it is, and `graph_check` sees another graph in the same bytes, or none."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "graph.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    graph = add_graph(helper.make_tensor("weights", TensorProto.FLOAT, [4], [1, 2, 3, 4]))
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    content = (tmp_path / "graph.ort").read_bytes()
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])  # which takes it, if it is let
    with pytest.raises(InvalidBundle, match="does not load"):
        open_session(content, "cpu")


def test_cuda_is_not_promised_by_a_build_without_it(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [runtime.CPU])
    with pytest.raises(ModelFailure, match="has no CUDA"):
        open_session(b"", "cuda")


class FellBack:
    """What a GPU build gives on a machine without a GPU: no error, and a session on the CPU."""

    def __init__(self, model, options, providers):
        self.wanted = [name if isinstance(name, str) else name[0] for name in providers]

    def get_providers(self):
        return [runtime.CPU]


@pytest.fixture
def _gpu_build_without_gpu(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [runtime.CUDA, runtime.CPU])
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
    monkeypatch.setattr("onnxruntime.InferenceSession", FellBack)


@pytest.mark.usefixtures("_gpu_build_without_gpu")
def test_a_silent_fallback_is_an_error_if_cuda_was_asked_for():
    with pytest.raises(ModelFailure, match=r"fell back to CPUExecutionProvider: lib.* is not installed"):
        open_session(b"", "cuda")


@pytest.mark.usefixtures("_gpu_build_without_gpu")
def test_auto_tries_cuda_and_takes_what_there_is():
    assert open_session(b"", "auto").wanted == [runtime.CUDA, runtime.CPU]
    assert open_session(b"", "cpu").wanted == [runtime.CPU]


def test_two_builds_are_noticed(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "1.31.1")
    assert conflicting_builds() == ["onnxruntime 1.31.1", "onnxruntime-gpu 1.31.1"]

    def only_cpu(name):
        if name == "onnxruntime":
            return "1.31.1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", only_cpu)
    assert conflicting_builds() == []


def test_the_parent_process_does_not_import_onnx_runtime_nor_torch():
    probe = "import sys, service.api; print({'onnxruntime', 'torch', 'training'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def large_graph():
    """One row becomes a million before they are one number."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("Expand", ["x", "million"], ["wide"]),
        helper.make_node("Exp", ["wide"], ["curved"]),
        helper.make_node("ReduceMax", ["curved"], ["out"], keepdims=0),
    ]
    million = helper.make_tensor("million", TensorProto.INT64, [2], [10**6, 4])
    graph = helper.make_graph(nodes, "large", [x], [out], [million])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


MEMORY_OF_SESSIONS = """
import sys
import numpy as np
from service.runtime import open_session

def pages():
    return int(open("/proc/self/statm").read().split()[1])

graph, sessions, seen = open(sys.argv[1], "rb").read(), [], []
for _ in range(6):
    sessions.append(open_session(graph, "cpu"))
    before = pages()
    sessions[-1].run(None, {"x": np.zeros((1, 4), np.float32)})
    seen.append(pages() - before)
print(*seen)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sessions_of_a_process_share_the_memory_that_runs_take(tmp_path):
    (tmp_path / "large.onnx").write_bytes(large_graph())
    command = [sys.executable, "-c", MEMORY_OF_SESSIONS, tmp_path / "large.onnx"]
    first, *others = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert first > 4000  # pages: the graph does take memory
    assert sum(others) < first / 2
