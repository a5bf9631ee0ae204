"""The same emoji by two vendors, unpaired: each vendor shows another half of the subjects."""

from dataclasses import dataclass
from pathlib import Path

from service.manifest import DataSource
from training.config import RecipeError
from training.datasets.base import AbstractDataset, DatasetError, Domains, Split
from training.datasets.emoji import (
    STYLES,
    StyleName,
    base_code,
    bring_styles,
    draw,
    has_skin_tone,
    is_flag,
    open_style,
    stack,
)
from training.datasets.picture_files import check_size
from training.datasets.splits import check_share, half_of, split_of


@dataclass(frozen=True)
class EmojiDomains(AbstractDataset):
    """Style `a` and style `b`. In the training split no base code occurs in both, so that no pair is ever seen, not
    even by accident; the held-out split holds true partners, with the same keys in the same order on both sides.
    """

    a: StyleName = "twemoji"
    b: StyleName = "noto"
    size: int = 64
    """Height and width, pixels; both defaults are drawn at 64."""
    flags: bool = False
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_size(self.size)
        check_share(self.held_out)
        if self.a == self.b:
            raise RecipeError(f"a and b are both {self.a}; two domains are two styles")

    def bring(self, source: Path | None = None) -> Path:
        return bring_styles([self.a, self.b], source)

    def load(self, split: Split) -> Domains:
        usual = {self.a, self.b} == {EmojiDomains.a, EmojiDomains.b}
        drawings = {name: open_style(name, "emoji-domains" if usual else None) for name in (self.a, self.b)}
        shared = [
            code
            for code in sorted(drawings[self.a].keys() & drawings[self.b].keys())
            if not has_skin_tone(code)
            and (self.flags or not is_flag(code))
            and split_of(base_code(code), self.held_out) == split
        ]
        # By vendor, not by side: a and b change places without changing what each of them shows.
        halves = {name: half for half, name in enumerate(sorted((self.a, self.b)))}
        shown = {
            name: draw(
                name,
                drawings[name],
                [code for code in shared if split == "test" or half_of(base_code(code)) == half],
                self.size,
            )
            for name, half in halves.items()
        }
        a, b = shown[self.a], shown[self.b]
        if split == "test":
            a, b = ({code: side[code] for code in shared if code in a and code in b} for side in (a, b))
        if not a or not b:
            raise DatasetError(f"no picture is in the {split} split; held_out is {self.held_out}")
        return Domains(stack(a), stack(b), tuple(a), tuple(b))

    def card(self, *, size: int) -> DataSource:
        styles = [STYLES[self.a], STYLES[self.b]]
        return DataSource(
            name=" and ".join(style.title for style in styles),
            version=", ".join(f"{style.package.name} {style.package.version}" for style in styles),
            licence=" AND ".join(sorted({style.licence for style in styles})),
            homepage=" ".join(style.homepage for style in styles),
            size=size,
        )
