"""Data sets: each yields tensors and says where it comes from and under which licence."""

from training.datasets.base import AbstractDataset, Data, DatasetError, Domains, Pairs, Pictures, Split
from training.datasets.edges import Edges
from training.datasets.emoji_domains import EmojiDomains
from training.datasets.fluent import Fluent
from training.datasets.pair_folders import PairFolders
from training.datasets.picture_sets import PICTURE_SETS
from training.datasets.two_folders import TwoFolders

DATASETS: dict[str, type[AbstractDataset]] = {
    **PICTURE_SETS,
    "edges": Edges,
    "emoji-domains": EmojiDomains,
    "fluent": Fluent,
    "pair-folders": PairFolders,
    "two-folders": TwoFolders,
}

__all__ = ["DATASETS", "AbstractDataset", "Data", "DatasetError", "Domains", "Pairs", "Pictures", "Split"]
