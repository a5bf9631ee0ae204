"""Golden samples: a few pictures made at export, made again here before anybody is served, and compared.

On the hardware that made them they must be equal, pixel by pixel: otherwise something is broken, and the bundle is not
served. Elsewhere other kernels round otherwise, and the difference is measured and told.
"""

import io
import math
import platform
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from service.errors import InvalidBundle
from service.manifest import GOLDEN_FILE, Hardware, Manifest
from service.pixels import Pixels, pixels_sha256

Make = Callable[[Sequence[int], Sequence[int | None]], Pixels]
"""Seeds and labels -> uint8 [N, height, width, channels], without truncation."""

Translate = Callable[[Pixels, Sequence[int]], Pixels]
"""Pictures uint8 [N, height, width, channels] and seeds (0 if there is no z) -> uint8 [N, height, width, channels]."""

GoldenResult = Literal["matches", "differs", "untested"]

ROWS = 2
"""Samples that are made at once."""
SECONDS = 5.0
"""After that no more of them are made: a large generator has a thousand classes, and somebody waits for it."""
MAX_BYTES = 256 * 2**20
"""Of their pixels: what a small file may unpack to."""
HEADER_BYTES = 256
"""Most of what an array's file holds besides its values."""

CPUINFO = Path("/proc/cpuinfo")
EXTENSIONS = frozenset(
    ["sse4_1", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
     "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "fphp", "i8mm",
     "bf16", "sve", "sve2", "sme", "sme2", "vsx", "vx", "lsx", "lasx"]
)  # fmt: skip
"""As Linux names them in /proc/cpuinfo."""


class GoldenReport(BaseModel):
    """What came of making a bundle's golden samples again."""

    model_config = ConfigDict(frozen=True)

    result: GoldenResult = Field(description="whether this replica makes them pixel by pixel")
    checked: int = Field(default=0, description="how many were made again")
    same_hardware: bool | None = Field(
        default=None, description="whether this is the hardware that made them; null if the bundle does not say"
    )
    largest: int | None = Field(default=None, description="difference, in levels of 255; null if it is not known")
    mean: float | None = Field(
        default=None, description="difference over all values, in levels; null if it is not known"
    )

    def __str__(self) -> str:
        if self.result == "untested":
            return "untested"
        where = {True: "the same hardware", False: "other hardware", None: "unknown hardware"}[self.same_hardware]
        by = (
            ""
            if self.largest is None or not self.largest
            else f" by at most {self.largest} levels, {self.mean:.3g} on average"
        )
        return f"{self.checked} made again on {where}: {self.result}{by}"


def this_hardware(provider: str) -> Hardware:
    """What may change a pixel here.

    The processor's name and its extensions are those of the first processor in /proc/cpuinfo; elsewhere than on Linux
    Python's `platform.processor()` is the name, and extensions are not known.

    Args:
        provider: as an ONNX Runtime session names it.
    """
    cpuinfo = _first_processor()
    name = cpuinfo.get("model name") or " ".join(
        f"{key} {cpuinfo[key]}" for key in ("CPU implementer", "CPU part", "CPU variant") if key in cpuinfo
    )
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or cpuinfo.get("features") or "").split()
    return Hardware(
        machine=platform.machine(),
        cpu=(name or platform.processor())[:200],
        extensions=tuple(sorted(EXTENSIONS.intersection(flags))),
        provider=provider,
        onnxruntime=_onnxruntime_version(),
    )


def save_pixels(path: Path, pixels: Pixels, images: Pixels | None = None) -> None:
    """Write the golden samples' pixels, uint8 [N, height, width, channels] in the manifest's order, and their input."""
    if images is None:
        np.savez_compressed(path, pixels=pixels)
    else:
        np.savez_compressed(path, pixels=pixels, images=images)


def check_golden(manifest: Manifest, content: bytes | None, make: Make, provider: str) -> GoldenReport:
    """Make a bundle's golden samples again.

    Args:
        content: of `golden.npz`; None if the bundle has none, and then a difference cannot be measured.
        make: runs the generator.
        provider: what it runs on.

    Raises:
        InvalidBundle: if they differ on the hardware that made them, or are not what the manifest says.
    """
    if not manifest.golden:
        return GoldenReport(result="untested")
    _check_labels(manifest)
    expected = None if content is None else _read_pixels(content, manifest)

    def make_some(rows: slice) -> Pixels:
        part = manifest.golden[rows]
        return make([golden.seed for golden in part], [golden.label for golden in part])

    return _compare(manifest, expected, make_some, provider)


def check_golden_translations(
    manifest: Manifest, content: bytes | None, translate: Translate, provider: str
) -> GoldenReport:
    """The same for a bundle whose task is `translate`; the input is in `golden.npz` too.

    Raises:
        InvalidBundle: as `check_golden`.
    """
    if not manifest.golden or content is None:
        return GoldenReport(result="untested")
    images = _read_images(content, manifest)
    height, width = images.shape[1:3]
    expected = _read_array(
        content, "pixels", (len(images), height, width, manifest.output.channels),
        [golden.pixels_sha256 for golden in manifest.golden],
    )  # fmt: skip

    def make_some(rows: slice) -> Pixels:
        return translate(images[rows], [golden.seed for golden in manifest.golden[rows]])

    return _compare(manifest, expected, make_some, provider)


def _compare(
    manifest: Manifest, expected: Pixels | None, make_some: Callable[[slice], Pixels], provider: str
) -> GoldenReport:
    """Make samples, a few at once, and compare them with their hashes and with their pixels, where these are known."""
    made_on = manifest.golden_made_on
    same_hardware = None if made_on is None else made_on == this_hardware(provider)
    until = monotonic() + SECONDS
    checked, equal, largest, total, values = 0, True, 0, 0, 0
    while checked < len(manifest.golden) and (not checked or monotonic() < until):
        rows = slice(checked, checked + ROWS)
        part = manifest.golden[rows]
        pixels = make_some(rows)
        equal &= all(pixels_sha256(row) == golden.pixels_sha256 for row, golden in zip(pixels, part, strict=True))
        if expected is not None:
            difference = np.abs(pixels.astype(np.int16) - expected[rows])
            largest, total = max(largest, int(difference.max())), total + int(difference.sum())
            values += difference.size
        checked += len(part)
    known = expected is not None
    report = GoldenReport(
        result="matches" if equal else "differs",
        checked=checked,
        same_hardware=same_hardware,
        largest=largest if known else None,
        mean=total / values if known else None,
    )
    if not equal and same_hardware:
        raise InvalidBundle(f"golden samples: {report}; the graph, ONNX Runtime or this machine is not what it was")
    return report


def _check_labels(manifest: Manifest) -> None:
    num_classes = len(manifest.classes or ())
    for golden in manifest.golden:
        if (golden.label is not None) != bool(num_classes) or (golden.label or 0) >= max(num_classes, 1):
            raise InvalidBundle(f"golden sample {golden.seed} has label {golden.label}, of {num_classes} classes")


def _read_pixels(content: bytes, manifest: Manifest) -> Pixels:
    output = manifest.output
    shape = (len(manifest.golden), output.height or 0, output.width or 0, output.channels)
    return _read_array(content, "pixels", shape, [golden.pixels_sha256 for golden in manifest.golden])


def _read_images(content: bytes, manifest: Manifest) -> Pixels:
    """The input of the golden samples; they are of one size, whichever it is if the graph takes any."""
    source = manifest.input
    assert source is not None
    shape = (len(manifest.golden), source.height, source.width, source.channels)
    return _read_array(content, "images", shape, [golden.image_sha256 or "" for golden in manifest.golden])


def _read_array(content: bytes, name: str, shape: tuple[int | None, ...], hashes: Sequence[str]) -> Pixels:
    """An array uint8 of `golden.npz`, of which every row has its hash; None in its shape is any size."""
    largest = min(math.prod(MAX_BYTES if side is None else side for side in shape), MAX_BYTES) + HEADER_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(f"{name}.npy") as stream:
            unpacked = stream.read(largest + 1)  # never more, whatever the archive promises or holds
        if len(unpacked) > largest:
            raise InvalidBundle(f"{GOLDEN_FILE} unpacks to more than {largest} bytes")
        pixels: Pixels = np.load(io.BytesIO(unpacked), allow_pickle=False)
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InvalidBundle(f"{GOLDEN_FILE} holds no array of the name {name} that can be read") from error
    fits = len(pixels.shape) == len(shape) and all(a in (None, b) for a, b in zip(shape, pixels.shape, strict=True))
    if pixels.dtype != np.uint8 or not fits:
        raise InvalidBundle(f"{GOLDEN_FILE} holds {pixels.dtype} {pixels.shape}; the manifest implies uint8 {shape}")
    if any(pixels_sha256(row) != expected for row, expected in zip(pixels, hashes, strict=True)):
        raise InvalidBundle(f"{GOLDEN_FILE} does not hold the {name} whose hashes stand in the manifest")
    return pixels


def _first_processor() -> dict[str, str]:
    try:
        lines = CPUINFO.read_text(errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _onnxruntime_version() -> str:
    import onnxruntime  # noqa: PLC0415

    return str(onnxruntime.__version__)
