"""The bundles that are served: the one that is shipped, a larger one made here, and copies under other names."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.environments import CACHE, ROOT
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, Manifest, Picture, file_sha256

SHIPPED = ROOT / "models" / "fashion"
LARGE = CACHE / "bundles" / "large"
LARGE_SIZE = 64


def large() -> Path:
    """A `dcgan` for RGB pictures of 64 x 64 in 10 classes, never trained: it is as fast as a trained one."""
    if (LARGE / MANIFEST_FILE).exists():
        return LARGE
    import torch  # noqa: PLC0415 - most runs find the bundle made

    from training.architectures import GENERATORS, PictureShape  # noqa: PLC0415
    from training.graph import sampling_graph  # noqa: PLC0415
    from training.onnx_file import write_onnx  # noqa: PLC0415

    torch.manual_seed(0)
    classes = tuple(f"class-{index}" for index in range(10))
    generator = GENERATORS["dcgan"]().build(PictureShape(channels=3, size=LARGE_SIZE, num_classes=len(classes)))
    output = Picture(height=LARGE_SIZE, width=LARGE_SIZE, channels=3)
    graph = sampling_graph(generator.eval(), generator.z_dim, classes, output)
    LARGE.mkdir(parents=True, exist_ok=True)
    write_onnx(graph.module, graph.inputs(2), ["pixels"], LARGE / GENERATOR_FILE)
    manifest = Manifest(
        name=LARGE.name,
        version="1",
        task="generate",
        sha256={GENERATOR_FILE: file_sha256(LARGE / GENERATOR_FILE)},
        latent=graph.latent,
        classes=graph.classes,
        output=graph.output,
        recipe={},
        data=(),
        licence="Apache-2.0",
        created_with={},
    )
    (LARGE / MANIFEST_FILE).write_text(manifest.to_json())
    return LARGE


@contextmanager
def alone(bundle: Path) -> Iterator[Path]:
    """A directory of models that holds this one."""
    with TemporaryDirectory(prefix="ganery-bench-") as folder:
        shutil.copytree(bundle, Path(folder) / bundle.name)
        yield Path(folder)


@contextmanager
def copies(bundle: Path, count: int) -> Iterator[Path]:
    """A directory of models that holds this one and copies of it under other names, `count` in all."""
    with alone(bundle) as folder:
        manifest = Manifest.read(bundle)
        for index in range(1, count):
            copy = folder / f"{bundle.name}-{index}"
            shutil.copytree(bundle, copy)
            (copy / MANIFEST_FILE).write_text(manifest.model_copy(update={"name": copy.name}).to_json())
        yield folder
