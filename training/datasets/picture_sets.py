"""The data sets whose splits are plain `Pictures`: what others can be made of."""

from training.datasets.base import AbstractDataset
from training.datasets.emoji import Emoji
from training.datasets.fashion_mnist import FashionMNIST
from training.datasets.image_folder import ImageFolder

PICTURE_SETS: dict[str, type[AbstractDataset]] = {
    "emoji": Emoji,
    "fashion-mnist": FashionMNIST,
    "image-folder": ImageFolder,
}
