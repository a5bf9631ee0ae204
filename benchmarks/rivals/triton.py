"""Triton on the CPU: the server that comes inside the package nvidia-pytriton, with its Python backend.

One model process for each CPU, dynamic batching without a delay, no metrics, no gRPC. A request is one tensor, uint64
[seed, class], sent raw; the answer is one tensor of bytes. The model processes embed the system's libpython.
"""

import os
import shutil
import site
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import MAX_BATCH, PORT_VARIABLE, Pictures
from service.cpus import available_cpus

ROOT = Path(__file__).parents[2]

CONFIG = f"""
name: "generator"
backend: "python"
max_batch_size: {MAX_BATCH}
input [{{ name: "ask" data_type: TYPE_UINT64 dims: [2] }}]
output [{{ name: "png" data_type: TYPE_UINT8 dims: [-1] }}]
instance_group [{{ kind: KIND_CPU count: {available_cpus()} }}]
dynamic_batching {{}}
"""

# The embedded Python knows nothing of this environment, and reads no PYTHONPATH.
MODEL = f"""
import sys
sys.path[:0] = {[str(ROOT), *site.getsitepackages()]!r}
from benchmarks.rivals.triton import TritonPythonModel
"""


class TritonPythonModel:
    """The interface that Triton's Python backend looks for."""

    def initialize(self, arguments: dict[str, str]) -> None:
        self.pictures = Pictures.from_environment()

    def execute(self, requests: list[Any]) -> list[Any]:
        import triton_python_backend_utils as backend  # noqa: PLC0415 - exists in Triton's processes only

        asks = [backend.get_input_tensor_by_name(request, "ask").as_numpy()[0].tolist() for request in requests]
        files = self.pictures.png([seed for seed, _ in asks], [label for _, label in asks])
        tensors = [backend.Tensor("png", np.frombuffer(file, np.uint8)[None]) for file in files]
        return [backend.InferenceResponse([tensor]) for tensor in tensors]


def lay_out(server: Path, folder: Path) -> None:
    """The folders that Triton wants: its backends, with the stub for this Python beside them, and the models."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(server / "backends", folder / "backends")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / "python_backend_stubs" / python / "triton_python_backend_stub", folder / "backends" / "python")
    model = folder / "models" / "generator"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / "model.py").write_text(MODEL)


if __name__ == "__main__":
    packages = Path(site.getsitepackages()[0])
    server, folder = packages / "pytriton" / "tritonserver", Path(sys.prefix) / "triton"
    lay_out(server, folder)
    command = [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={os.environ[PORT_VARIABLE]}",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    # The stub has been moved away from the libraries that it looks for near itself.
    os.execve(command[0], command, {**os.environ, "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs")})
