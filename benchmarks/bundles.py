"""The bundles that are served: the one that is shipped, a larger one made here, and copies under other names."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.environments import CACHE, ROOT
from service.manifest import GENERATOR_FILE, MANIFEST_FILE, Manifest, Picture, file_sha256

SHIPPED = ROOT / "models" / "fashion"
LARGE_SIZE = 64
HUGE_SIZE = 256


def large(size: int = LARGE_SIZE) -> Path:
    """A `dcgan` for square RGB pictures of that size in 10 classes, never trained: it is as fast as a trained one."""
    bundle = CACHE / "bundles" / f"{size}" / "large"
    if (bundle / MANIFEST_FILE).exists():
        return bundle
    import torch  # noqa: PLC0415 - most runs find the bundle made

    from training.architectures import GENERATORS, PictureShape  # noqa: PLC0415
    from training.graph import OUTPUTS, sampling_graph  # noqa: PLC0415
    from training.onnx_file import write_onnx  # noqa: PLC0415

    torch.manual_seed(0)
    classes = tuple(f"class-{index}" for index in range(10))
    generator = GENERATORS["dcgan"]().build(PictureShape(channels=3, size=size, num_classes=len(classes)))
    output = Picture(height=size, width=size, channels=3)
    graph = sampling_graph(generator.eval(), generator.z_dim, classes, output)
    bundle.mkdir(parents=True, exist_ok=True)
    write_onnx(graph.module, graph.inputs(2), OUTPUTS, bundle / GENERATOR_FILE)
    manifest = Manifest(
        name=bundle.name,
        version="1",
        task="generate",
        sha256={GENERATOR_FILE: file_sha256(bundle / GENERATOR_FILE)},
        latent=graph.latent,
        classes=graph.classes,
        output=graph.output,
        recipe={},
        data=(),
        licence="Apache-2.0",
        created_with={},
    )
    (bundle / MANIFEST_FILE).write_text(manifest.to_json())
    return bundle


@contextmanager
def alone(bundle: Path) -> Iterator[Path]:
    """A directory of models that holds this one."""
    with TemporaryDirectory(prefix="ganery-bench-") as folder:
        shutil.copytree(bundle, Path(folder) / bundle.name)  # no link: a link out of the directory is refused
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
