"""ONNX Runtime: which build is installed, which hardware it got, and one way to open a session.

ONNX Runtime is imported when the first session is opened, not with this module: BentoML's parent process imports the
service too, and never runs a graph.
"""

import os
from functools import cache
from importlib import metadata
from typing import Any, Literal

from service.errors import InvalidBundle, ModelFailure, first_line

Provider = Literal["auto", "cpu", "cuda"]
"""What an operator may ask for."""

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


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


def missing_for_cuda() -> str | None:
    """What keeps a build for GPUs from using one; None if all its libraries load, or it is a build for CPUs."""
    import onnxruntime  # noqa: PLC0415

    if CUDA not in compiled_providers():
        return None
    from service import cuda  # noqa: PLC0415

    onnxruntime.preload_dlls()
    return cuda.why_not(onnxruntime)


def open_session(model: bytes, provider: Provider) -> Any:
    """An `onnxruntime.InferenceSession`, or what takes its place, on the hardware that was asked for.

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
    if provider == "cpu" or not compiled_for_cuda:
        options = cpu_session_options()
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        return _session(onnxruntime, model, options, [CPU])

    from service import cuda  # noqa: PLC0415 - it takes a quarter of a second, which processes for CPUs need not wait

    settings = cuda.CudaSettings()
    onnxruntime.preload_dlls()
    options = cuda_session_options(onnxruntime)
    session = _session(onnxruntime, model, options, [(CUDA, cuda.provider_options(settings)), CPU])
    # The list of compiled providers promises CUDA on machines without a GPU; only the session knows what it got.
    got = session.get_providers()[0]
    if provider == "cuda" and got != CUDA:
        reason = cuda.why_not(onnxruntime) or "the driver finds no GPU that it can use; nvidia-smi tells more"
        raise ModelFailure(f"SERVICE_PROVIDER=cuda, but ONNX Runtime fell back to {got}: {reason}")
    if got == CUDA and settings.cuda_buffers and cuda.can_be_buffered(session):
        return cuda.Buffered(session)
    return session


@cache
def _share_memory() -> None:
    """Let the sessions of this process that ask for it compute in the same memory.

    ONNX Runtime gives none back. With memory of its own each session keeps what its largest run took, and a process
    with many bundles needs their sum, where the largest of them is enough.
    """
    import onnxruntime  # noqa: PLC0415

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({}))


def _session(onnxruntime: Any, model: bytes, options: Any, providers: list[Any]) -> Any:
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # its exceptions share no base class but Exception
        raise InvalidBundle(f"ONNX Runtime does not load the graph: {first_line(error)}") from error


def cpu_session_options() -> Any:
    """How sessions on the CPU run, an `onnxruntime.SessionOptions`.

    Golden samples are made at export by the same ones, or some pixels would be others than those served.
    """
    import onnxruntime  # noqa: PLC0415

    return _options(onnxruntime)


def cuda_session_options(onnxruntime: Any) -> Any:
    """How sessions run whose first provider is CUDA, an `onnxruntime.SessionOptions`."""
    options = _options(onnxruntime)
    options.use_deterministic_compute = True  # of two kernels that do the same, the one that repeats itself
    return options


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    # One level below ALL, which rewrites layouts to suit the CPU at hand, and is faster: but then replicas on other
    # CPUs add up in another order, and some pixels differ by a level. This one gives the same floats with AVX2 and 512.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # One thread for each run, and several runs at once: more pictures than one run on two threads makes, and no
    # kernel splits its sums by the machine's number of CPUs.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Spinning threads eat a container's CPU quota and leave the event loop waiting.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By its bytes, a file may also be taken for one in ORT's own format, which `graph_check` has not looked at.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Weights outside the graph would be looked for in the working directory; there is nothing below a device.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = 4  # failures arrive as exceptions, and are logged once, by us
    return options
