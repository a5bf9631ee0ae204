"""One ONNX Runtime session behind one method. No HTTP, no asyncio."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidBundle, ModelFailure, NonFiniteOutput
from service.latents import Latents, draw
from service.manifest import Manifest
from service.runtime import open_session
from service.settings import Provider

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Psi = NDArray[np.float32]


class Generator:
    """z, y and psi in, pixels out.

    Opening one checks that the graph's inputs and outputs are those that the manifest implies, runs it alone and in
    company, and remembers whether the company changed the picture.

    Raises:
        InvalidBundle: if ONNX Runtime refuses the graph, or the graph is not what the manifest says.
        ModelFailure: if `provider` asks for hardware that is not there.
    """

    def __init__(self, model: bytes, manifest: Manifest, *, provider: Provider = "auto") -> None:
        assert manifest.latent is not None
        self._latent = manifest.latent
        self._num_classes = len(manifest.classes or ())
        self._shape = (manifest.output.height, manifest.output.width, manifest.output.channels)
        self._session = open_session(model, provider)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]
        self._check_signature()
        self.rows_match = self._warm_up()

    def pixels(self, z: Latents, y: Labels | None, psi: Psi) -> Pixels:
        """Run the graph once.

        Args:
            z: float32 [N, z_dim].
            y: int64 [N], or None if the bundle knows no classes.
            psi: float32 [N], in (0, 1]; not used by a graph without truncation.

        Returns:
            uint8 [N, height, width, channels]; row i does not depend on the others.

        Raises:
            ModelFailure: if ONNX Runtime fails.
            NonFiniteOutput: if the graph says so of one of the rows.
        """
        if len(z) == 1 and not self.rows_match:
            z, psi = z.repeat(2, axis=0), psi.repeat(2)
            return self._run(z, None if y is None else y.repeat(2), psi)[:1]
        return self._run(z, y, psi)

    def _run(self, z: Latents, y: Labels | None, psi: Psi) -> Pixels:
        feed: dict[str, Any] = {"z": z}
        if self._num_classes:
            feed["y"] = y
        if self._latent.truncation:
            feed["psi"] = psi
        try:
            outputs = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except Exception as error:
            raise ModelFailure("the generator failed") from error
        pixels: Pixels = outputs["pixels"]
        if pixels.shape != (len(z), *self._shape):
            raise ModelFailure(f"the generator gave pixels {list(pixels.shape)}, not {[len(z), *self._shape]}")
        # Pixels are bytes, in which NaN is some colour or other; only the graph can still tell.
        if "finite" in outputs and not (len(outputs["finite"]) == len(z) and outputs["finite"].all()):
            raise NonFiniteOutput("the generator computed NaN or infinity instead of a picture; try another seed")
        return pixels

    def _check_signature(self) -> None:
        inputs: dict[str, tuple[str, list[int]]] = {"z": ("tensor(float)", [self._latent.z_dim])}
        if self._num_classes:
            inputs["y"] = ("tensor(int64)", [])
        if self._latent.truncation:
            inputs["psi"] = ("tensor(float)", [])
        if None in self._shape:
            raise InvalidBundle("manifest output: a generator of pictures from seeds needs a height and a width")
        _check_tensors("inputs", self._session.get_inputs(), inputs)
        outputs: dict[str, tuple[str, list[Any]]] = {"pixels": ("tensor(uint8)", list(self._shape))}
        if "finite" in self._outputs:  # bundles made before there was this output are still served
            outputs["finite"] = ("tensor(bool)", [])
        _check_tensors("outputs", self._session.get_outputs(), outputs)

    def _warm_up(self) -> bool:
        """Whether a row is the same alone as with another; some kernels differ for a batch of one."""
        z = draw([0, 1], self._latent.z_dim, self._latent.scheme)
        y = np.array([0, self._num_classes - 1], np.int64) if self._num_classes else None
        psi = np.ones(2, np.float32)
        try:
            pair = self._run(z, y, psi)
            alone = self._run(z[:1], None if y is None else y[:1], psi[:1])
        except ModelFailure as error:
            cause = f": {error.__cause__}" if error.__cause__ else ""
            raise InvalidBundle(f"warming up: {error.detail}{cause}") from error
        return np.array_equal(pair[:1], alone)


def _check_tensors(what: str, found: list[Any], expected: dict[str, tuple[str, list[Any]]]) -> None:
    """Compare a graph's inputs or outputs with `{name: (type, shape after N)}`; N must be symbolic, the rest may be."""
    names = [tensor.name for tensor in found]
    if sorted(names) != sorted(expected):
        raise InvalidBundle(f"the graph's {what} are {', '.join(names)}; the manifest implies {', '.join(expected)}")
    for tensor in found:
        dtype, sizes = expected[tensor.name]
        if tensor.type != dtype:
            raise InvalidBundle(f"the graph's {tensor.name} is {tensor.type}; the contract says {dtype}")
        if isinstance(tensor.shape[0] if tensor.shape else 0, int):
            raise InvalidBundle(f"the graph's {tensor.name} has shape {tensor.shape}; its first size must be dynamic")
        if len(tensor.shape) != len(sizes) + 1 or any(
            isinstance(size, int) and size != wanted for size, wanted in zip(tensor.shape[1:], sizes, strict=True)
        ):
            raise InvalidBundle(
                f"the graph's {tensor.name} has shape {tensor.shape}; the manifest implies {['N', *sizes]}"
            )
