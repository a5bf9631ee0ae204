"""ONNX Runtime: which build is installed, which hardware it got, and one way to open a session.

ONNX Runtime is imported when the first session is opened, not with this module: BentoML's parent process imports the
service too, and never runs a graph.
"""

import os
from importlib import metadata
from typing import Any, Literal

from service.errors import InvalidBundle, ModelFailure, first_line

Provider = Literal["auto", "cpu", "cuda"]
"""What an operator may ask for."""

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
CUDA_OPTIONS = {
    # The default search times kernels and may choose another one in each process; so may replicas, then, disagree.
    "cudnn_conv_algo_search": "HEURISTIC",
    "use_tf32": "0",
}


def conflicting_builds() -> list[str]:
    """Both distributions of ONNX Runtime if both are installed (they overwrite each other's files), else nothing."""
    builds = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            builds.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return builds if len(builds) > 1 else []


def compiled_providers() -> list[str]:
    """What the installed build knows; hardware that it finds is another matter."""
    import onnxruntime  # noqa: PLC0415

    providers: list[str] = onnxruntime.get_available_providers()
    return providers


def open_session(model: bytes, provider: Provider) -> Any:
    """An `onnxruntime.InferenceSession` on the hardware that was asked for.

    Args:
        model: a serialised ONNX graph whose weights are all inside.
        provider: `cuda` fails rather than run on the CPU; `auto` prefers CUDA and takes the CPU.

    Raises:
        InvalidBundle: if ONNX Runtime does not take the graph.
        ModelFailure: if CUDA was asked for and not got.
    """
    import onnxruntime  # noqa: PLC0415

    compiled_for_cuda = CUDA in compiled_providers()
    if provider == "cuda" and not compiled_for_cuda:
        raise ModelFailure("SERVICE_PROVIDER=cuda, but the installed ONNX Runtime has no CUDA; install ganery[gpu]")
    wanted: list[Any] = [CPU]
    if provider != "cpu" and compiled_for_cuda:
        onnxruntime.preload_dlls()
        wanted = [(CUDA, CUDA_OPTIONS), CPU]
    try:
        session = onnxruntime.InferenceSession(model, _options(onnxruntime), providers=wanted)
    except Exception as error:  # its exceptions share no base class but Exception
        raise InvalidBundle(f"ONNX Runtime does not load the graph: {first_line(error)}") from error
    # The list of compiled providers promises CUDA on machines without a GPU; only the session knows what it got.
    got = session.get_providers()[0]
    if provider == "cuda" and got != CUDA:
        raise ModelFailure(f"SERVICE_PROVIDER=cuda, but ONNX Runtime fell back to {got}; see its messages in the log")
    return session


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    # One level below ALL, which rewrites layouts to suit the CPU at hand: replicas on any machine run the same nodes.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # One thread for each run, and several runs at once: nearly twice the pictures of one run on two threads, and no
    # kernel splits its sums by the machine's number of CPUs.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Spinning threads eat a container's CPU quota and leave the event loop waiting.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights outside the graph would be looked for in the working directory; there is nothing below a device.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = 4  # failures arrive as exceptions, and are logged once, by us
    return options
