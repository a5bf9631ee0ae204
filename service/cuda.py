"""How CUDA is used: the settings of its own, what ONNX Runtime is told, and why there is none.

Nothing here has run on a GPU yet. What could be tried without one is tried: the choice of the hardware by the real
build for GPUs, and the buffers on a CPU.
"""

import ctypes
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

LIBRARY = "capi/libonnxruntime_providers_cuda.so"
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}
"""Of the inputs and outputs that a bundle's graph may have."""


class CudaSettings(BaseSettings):
    """The `SERVICE_CUDA_*` variables; a process that opens sessions reads them for itself, for it inherits them."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_", frozen=True)

    cuda_tf32: bool = Field(
        default=False, description="let CUDA round to 10 bits of mantissa on the way: faster, and other pictures"
    )
    cuda_memory_bytes: int | None = Field(
        default=None, ge=2**20, description="most memory of the GPU for one bundle; unset is what there is"
    )
    cuda_buffers: bool = Field(
        default=False, description="keep inputs and outputs in buffers on the GPU (IO binding); not measured yet"
    )


def provider_options(settings: CudaSettings) -> dict[str, str]:
    """What the CUDA provider is told. Everything else is ONNX Runtime's default."""
    options = {
        # The default search times kernels and may choose another one in each process; so may replicas, then, disagree.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": str(int(settings.cuda_tf32)),
    }
    if settings.cuda_memory_bytes is not None:
        options["gpu_mem_limit"] = str(settings.cuda_memory_bytes)
        # Doubling each step, as by default, would reach the limit with half of it unused.
        options["arena_extend_strategy"] = "kSameAsRequested"
    return options


def why_not(onnxruntime: Any) -> str | None:
    """Why a build for GPUs computes on the CPU: what is missing of its libraries; None if they load.

    ONNX Runtime says it on standard error, and raises nothing.
    """
    library = Path(onnxruntime.__file__).parent / LIBRARY
    if not library.exists():
        return f"{library.name} is not installed"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        missing = str(error)
        if "libcuda.so" in missing:
            return f"{missing}; it is the driver's: is there a GPU, and does the container get it?"
        return f"{missing}; pip install 'onnxruntime-gpu[cuda,cudnn]' brings the libraries"
    return None


class Buffered:
    """A session whose inputs and outputs stay where they are on the device, one set of them for each number of rows.

    It takes the place of an `onnxruntime.InferenceSession`, and saves its allocations for each run. One run at a time:
    a GPU's work is one stream.

    Args:
        session: whose inputs and outputs all begin with N, and have no other size that is free.
        device: `cuda`; `cpu` for trying it.
    """

    def __init__(self, session: Any, device: str = "cuda") -> None:
        self._session = session
        self._device = device
        self._bound: dict[int, tuple[Any, dict[str, Any], dict[str, Any]]] = {}
        self._one_at_a_time = Lock()

    def run(self, names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """As the session's own."""
        rows = len(next(iter(feed.values())))
        with self._one_at_a_time:
            if rows not in self._bound:
                self._bound[rows] = self._bind(rows)
            binding, inputs, outputs = self._bound[rows]
            for name, array in feed.items():
                inputs[name].update_inplace(np.ascontiguousarray(array))
            self._session.run_with_iobinding(binding)
            # Copies, for on a CPU `numpy()` is the buffer itself, which the next run writes to.
            return [np.array(outputs[name].numpy()) for name in names]

    def get_inputs(self) -> list[Any]:
        """As the session's own."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        """As the session's own."""
        return list(self._session.get_outputs())

    def get_providers(self) -> list[str]:
        """As the session's own."""
        return list(self._session.get_providers())

    def _bind(self, rows: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        import onnxruntime  # noqa: PLC0415

        def buffer(tensor: Any) -> Any:
            shape = [rows, *tensor.shape[1:]]
            make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
            return make(shape, TYPES[tensor.type], self._device, 0)

        binding = self._session.io_binding()
        inputs = {tensor.name: buffer(tensor) for tensor in self.get_inputs()}
        outputs = {tensor.name: buffer(tensor) for tensor in self.get_outputs()}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return binding, inputs, outputs


def can_be_buffered(session: Any) -> bool:
    """Whether N is the only size of its inputs and outputs that is free."""
    tensors = [*session.get_inputs(), *session.get_outputs()]
    return all(tensor.type in TYPES and all(isinstance(size, int) for size in tensor.shape[1:]) for tensor in tensors)
