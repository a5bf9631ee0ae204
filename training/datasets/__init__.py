"""Data sets: each yields tensors and says where it comes from and under which licence."""

from training.datasets.base import AbstractDataset, Data, DatasetError, Domains, Pairs, Pictures, Split
from training.datasets.fashion_mnist import FashionMNIST
from training.datasets.image_folder import ImageFolder

DATASETS: dict[str, type[AbstractDataset]] = {
    "fashion-mnist": FashionMNIST,
    "image-folder": ImageFolder,
}

__all__ = ["DATASETS", "AbstractDataset", "Data", "DatasetError", "Domains", "Pairs", "Pictures", "Split"]
