"""Fluent emoji, flat and 3D: pairs of the same drawing, about 1,500 subjects."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from service.manifest import DataSource
from training.datasets.base import AbstractDataset, DatasetError, Pairs, Split
from training.datasets.emoji import STYLES, base_code, bring_styles, draw, has_skin_tone, open_style
from training.datasets.picture_files import check_size
from training.datasets.splits import check_share, split_of

SOURCE, TARGET = "fluent-flat", "fluent-3d"


@dataclass(frozen=True)
class Fluent(AbstractDataset):
    """Flat -> 3D. Held out by base code: copies that differ in skin, sex or direction are on the same side."""

    size: int = 64
    """Height and width, pixels; the 3D pictures are drawn at 256."""
    skin_tones: bool = False
    """Whether the training split has the copies in five skin tones as well; the held-out one never has."""
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_size(self.size)
        check_share(self.held_out)

    def bring(self, source: Path | None = None) -> Path:
        return bring_styles([SOURCE, TARGET], source)

    def load(self, split: Split) -> Pairs:
        drawings = {name: open_style(name, "fluent") for name in (SOURCE, TARGET)}
        toned = self.skin_tones and split == "train"
        codes = [
            code
            for code in sorted(drawings[SOURCE].keys() & drawings[TARGET].keys())
            if (toned or not has_skin_tone(code)) and split_of(base_code(code), self.held_out) == split
        ]
        flat, solid = (draw(name, drawings[name], codes, self.size) for name in (SOURCE, TARGET))
        both = [code for code in codes if code in flat and code in solid]
        if not both:
            raise DatasetError(f"no pair is in the {split} split; held_out is {self.held_out}")
        sources, targets = (torch.from_numpy(np.stack([style[code] for code in both])) for style in (flat, solid))
        return Pairs(sources, targets, tuple(both))

    def card(self, *, size: int) -> DataSource:
        versions = ", ".join(f"{STYLES[name].package.name} {STYLES[name].package.version}" for name in (SOURCE, TARGET))
        return DataSource(
            name="Fluent Emoji, flat and 3D, Copyright Microsoft Corporation",
            version=versions,
            licence=STYLES[TARGET].licence,
            homepage=STYLES[TARGET].homepage,
            size=size,
        )
