"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28 x 28 grey, 10 classes.

Reference: Xiao et al., "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017,
arXiv:1708.07747.
"""

import gzip
import http.client
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from service.manifest import DataSource
from training.datasets.base import AbstractDataset, DatasetError, Pictures, Split, cache_directory
from training.fetch import files_of, is_whole, keep, run

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

# Of the files inside the .gz: Debian packs them anew, so the packed bytes differ by source.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
TIMEOUT_SECONDS = 10


def _from_site(folder: Path) -> None:
    for name in tqdm(SHA256, desc=f"downloading from {SITE}", unit="file", leave=False):
        with (
            urllib.request.urlopen(f"{SITE}/{name}.gz", timeout=TIMEOUT_SECONDS) as reply,
            tqdm.wrapattr(
                reply, "read", total=int(reply.headers.get("Content-Length", 0)), desc=name, leave=False
            ) as progress,
            (folder / f"{name}.gz").open("wb") as target,
        ):
            shutil.copyfileobj(progress, target)


def _from_debian(folder: Path) -> None:
    # World-writable, because apt downloads as a user of its own.
    folder.chmod(0o777)
    run(["apt-get", "download", DEBIAN_PACKAGE], folder, f"downloading Debian package {DEBIAN_PACKAGE}")
    (package,) = folder.glob(f"{DEBIAN_PACKAGE}_*.deb")
    run(["dpkg-deb", "-x", package.name, "unpacked"], folder, f"unpacking {package.name}")


SOURCES: dict[str, Callable[[Path], None]] = {
    "public site": _from_site,
    "Debian package": _from_debian,
}
# Whatever goes wrong with one source, a page of a proxy in its place included, the next one may do better.
FAILURES = (OSError, subprocess.SubprocessError, http.client.HTTPException, ValueError, DatasetError)


def _read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _keep(folder: Path, name: str, target: Path) -> None:
    """Find a file in `folder`, packed or not, verify it and write it to `target` in one move."""
    found = files_of(folder, f"{name}.gz", name)
    if not found:
        raise DatasetError(f"{folder} holds neither {name}.gz nor {name}; four such files make Fashion-MNIST")
    try:
        content = _read(found[0])
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{found[0]} is damaged: {error}") from error
    keep(content, SHA256[name], target, found[0])


@dataclass(frozen=True)
class FashionMNIST(AbstractDataset):
    """The full set, from whichever source is reachable."""

    def bring(self, source: Path | None = None) -> Path:
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name, digest in SHA256.items() if not is_whole(folder / name, digest)]
        if not missing:
            return folder
        if source is not None:
            for name in missing:
                _keep(source, name, folder / name)
            return folder
        failures = []
        for title, fetch in SOURCES.items():
            with tempfile.TemporaryDirectory(prefix="ganery-") as scratch:
                try:
                    fetch(Path(scratch))
                    for name in missing:
                        _keep(Path(scratch), name, folder / name)
                except FAILURES as error:
                    reason = getattr(error, "stderr", None) or error
                    failures.append(f"{title}: {str(reason).strip()}")
                else:
                    return folder
        raise DatasetError(
            "no source gives Fashion-MNIST (" + "; ".join(failures) + "). "
            "Bring the four files yourself and name their folder with --from PATH."
        )

    def load(self, split: Split) -> Pictures:
        images, labels = (self._folder() / name for name in FILES[split])
        if not images.exists() or not labels.exists():
            raise DatasetError("Fashion-MNIST is not on this machine; run: python -m training data fashion-mnist")
        # An IDX file is a header of 4 bytes and 4 more for each dimension, then the values.
        pixels = np.fromfile(images, np.uint8)[16:].reshape(-1, 1, 28, 28)
        return Pictures(
            torch.from_numpy(pixels),
            torch.from_numpy(np.fromfile(labels, np.uint8)[8:].astype(np.int64)),
            CLASSES,
        )

    def card(self, *, size: int) -> DataSource:
        return DataSource(
            name="Fashion-MNIST",
            version="1.0",
            licence="MIT",
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            size=size,
        )

    @staticmethod
    def _folder() -> Path:
        return cache_directory() / "fashion-mnist"
