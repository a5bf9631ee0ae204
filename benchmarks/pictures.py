"""The work that all servers of the comparison do: seeds and classes in, PNG files out, by one ONNX Runtime session.

The rivals and the limit use this, so that what differs between servers is the server: the same graph with the
service's options, the same latents, the service's own encoder with its metadata.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.formats import FORMATS
from service.latents import draw
from service.manifest import GENERATOR_FILE, Manifest
from service.runtime import CPU, cpu_session_options
from service.sample import Sample

MAX_BATCH = 32
BUNDLE_VARIABLE, PORT_VARIABLE = "BENCH_BUNDLE", "BENCH_PORT"
"""How a rival learns what to serve, and where."""


class Pictures:
    """A bundle's generator in the plainest form.

    Args:
        bundle: directory of a bundle with classes.
        threads: of ONNX Runtime inside one run; 1 leaves the CPUs to others.
    """

    def __init__(self, bundle: Path, threads: int = 1) -> None:
        import onnxruntime  # noqa: PLC0415 - a server's parent process imports this file and runs no graph

        manifest = Manifest.read(bundle)
        assert manifest.latent is not None
        assert manifest.classes is not None
        self.bundle = bundle
        self.classes = len(manifest.classes)
        self._latent = manifest.latent
        self._class_names = manifest.classes
        self._named = {"model": manifest.name, "version": manifest.version, "digest": manifest.digest}
        self._encode = FORMATS["png"].encode
        options = cpu_session_options()
        if threads > 1:  # which have the machine to themselves, and are faster if they spin
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        self._session = onnxruntime.InferenceSession((bundle / GENERATOR_FILE).read_bytes(), options, providers=[CPU])

    @classmethod
    def from_environment(cls) -> "Pictures":
        """For a rival's process: the bundle that the benchmark named, one thread."""
        return cls(Path(os.environ[BUNDLE_VARIABLE]))

    def pixels(self, seeds: Sequence[int], labels: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 [N, height, width, channels]; one run, whatever N is."""
        feed: dict[str, Any] = {
            "z": draw(seeds, self._latent.z_dim, self._latent.scheme),
            "y": np.asarray(labels, np.int64),
        }
        if self._latent.truncation:
            feed["psi"] = np.ones(len(seeds), np.float32)
        pixels: NDArray[np.uint8] = self._session.run(["pixels"], feed)[0]
        return pixels

    def png(self, seeds: Sequence[int], labels: Sequence[int]) -> list[bytes]:
        """One file for each seed."""
        pixels = self.pixels(seeds, labels)
        return [self._file(*row) for row in zip(pixels, seeds, labels, strict=True)]

    def _file(self, pixels: NDArray[np.uint8], seed: int, label: int) -> bytes:
        class_name = self._class_names[label]
        return self._encode(
            pixels, Sample(**self._named, seed=seed, label=label, class_name=class_name, truncation=1.0)
        )
