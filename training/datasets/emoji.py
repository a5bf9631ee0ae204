"""Emoji as four vendors draw them, by code; and the set of one vendor's pictures."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np
import resvg_py
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.manifest import DataSource
from training.datasets.base import AbstractDataset, DatasetError, Pictures, Split
from training.datasets.picture_files import check_size, decode, read_each
from training.datasets.splits import check_share, split_of
from training.fetch import Package, bring_package

StyleName = Literal["noto", "twemoji", "fluent-3d", "fluent-flat"]
Drawings = dict[str, bytes]
"""Encoded pictures by code."""

VARIATION_SELECTOR = 0xFE0F
JOINER = 0x200D
SKIN_TONES = range(0x1F3FB, 0x1F400)
REGIONAL_LETTERS = range(0x1F1E6, 0x1F200)
FLAGS = {0x1F38C, 0x1F3C1, 0x1F3F3, 0x1F3F4, 0x1F6A9}
SEXES_AND_DIRECTIONS = {0x2640, 0x2642, 0x27A1}
# Drawn alike but for hair or hands: man, woman, person; boy, girl, child; old man, woman, person; the hours of a clock.
LOOK_ALIKES = {
    0x1F468: 0x1F9D1,
    0x1F469: 0x1F9D1,
    0x1F466: 0x1F9D2,
    0x1F467: 0x1F9D2,
    0x1F474: 0x1F9D3,
    0x1F475: 0x1F9D3,
    **dict.fromkeys(range(0x1F550, 0x1F568), 0x1F550),
}
# Different codes that Noto or Twemoji draw with the very same pixels: a family, and dependencies under their
# country's flag.
TWINS = {
    "1f46a": "1f9d1-200d-1f9d1-200d-1f9d2",
    "1f1ed-1f1f2": "1f1e6-1f1fa",
    "1f1e7-1f1fb": "1f1f3-1f1f4",
    "1f1f8-1f1ef": "1f1f3-1f1f4",
    "1f1e8-1f1f5": "1f1eb-1f1f7",
    "1f1f2-1f1eb": "1f1eb-1f1f7",
    "1f1e8-1f1f6": "1f1f8-1f1e6",
    "1f1e9-1f1ec": "1f1ee-1f1f4",
    "1f1ea-1f1e6": "1f1ea-1f1f8",
    "1f1fa-1f1f2": "1f1fa-1f1f8",
}


def _points(code: str) -> list[int]:
    return [int(point, 16) for point in code.split("-")]


def _code(points: list[int]) -> str:
    return "-".join(f"{point:x}" for point in points)


def plain_code(code: str) -> str:
    """One spelling of a code: lower case, no leading zeros, no variation selector, which vendors set differently."""
    return _code([point for point in _points(code) if point != VARIATION_SELECTOR])


def base_code(code: str) -> str:
    """What all near copies of a plain code share: skin tones, directions and `LOOK_ALIKES` count alike."""
    points = [LOOK_ALIKES.get(point, point) for point in _points(code) if point not in SKIN_TONES]
    words = _code(points).split(f"-{JOINER:x}-")
    kept = [word for word in words if int(word.split("-")[0], 16) not in SEXES_AND_DIRECTIONS or len(words) == 1]
    base = f"-{JOINER:x}-".join(kept)
    return TWINS.get(base, base)


def has_skin_tone(code: str) -> bool:
    """Whether a code asks for one; the swatches themselves count."""
    return any(point in SKIN_TONES for point in _points(code))


def is_flag(code: str) -> bool:
    return any(point in REGIONAL_LETTERS or point in FLAGS for point in _points(code))


@dataclass(frozen=True)
class Style:
    """How one vendor draws."""

    title: str
    licence: str
    homepage: str
    package: Package
    unpack: Callable[[tarfile.TarFile], Drawings]
    decode: Callable[[bytes, int], NDArray[np.uint8]]
    """(encoded, size) -> uint8 [3, size, size]."""


def _contents(archive: tarfile.TarFile, prefix: str) -> Iterator[tuple[str, bytes]]:
    """(name without folder and suffix, content) of every file below `prefix`."""
    for member in archive:
        if member.name.startswith(prefix) and member.isfile():
            stream = archive.extractfile(member)
            assert stream is not None
            yield Path(member.name).stem, stream.read()


def _files(archive: tarfile.TarFile, *, prefix: str) -> Drawings:
    return {plain_code(name): content for name, content in _contents(archive, prefix)}


def _icons(archive: tarfile.TarFile) -> Drawings:
    """SVG out of an Iconify set: bodies by name, names by code."""
    files = dict(_contents(archive, "package/"))
    icons, names = json.loads(files["icons"]), json.loads(files["chars"])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {icons["width"]} {icons["height"]}">'
    return {
        plain_code(code): f"{head}{icons['icons'][name]['body']}</svg>".encode()
        for code, name in names.items()
        if name in icons["icons"]  # the others are aliases: mirrored copies of one that is there
    }


def _decode_picture(encoded: bytes, size: int) -> NDArray[np.uint8]:
    return decode(io.BytesIO(encoded), size, 3)


def _decode_svg(encoded: bytes, size: int) -> NDArray[np.uint8]:
    png: IO[bytes] = io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=encoded.decode(), width=size, height=size)))
    return decode(png, size, 3)


STYLES: dict[str, Style] = {
    "noto": Style(
        title="Noto Emoji",
        licence="Apache-2.0",
        homepage="https://github.com/googlefonts/noto-emoji",
        package=Package(
            "emoji-datasource-google", "16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
        ),
        unpack=partial(_files, prefix="package/img/google/64/"),
        decode=_decode_picture,
    ),
    "twemoji": Style(
        title="Twemoji, Copyright Twitter, Inc and other contributors",
        licence="CC-BY-4.0",
        homepage="https://github.com/jdecked/twemoji",
        package=Package(
            "emoji-datasource-twitter", "16.0.0", "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"
        ),
        unpack=partial(_files, prefix="package/img/twitter/64/"),
        decode=_decode_picture,
    ),
    "fluent-3d": Style(
        title="Fluent Emoji 3D, Copyright Microsoft Corporation",
        licence="MIT",
        homepage="https://github.com/microsoft/fluentui-emoji",
        package=Package(
            "@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
        ),
        unpack=partial(_files, prefix="package/assets/"),
        decode=_decode_picture,
    ),
    "fluent-flat": Style(
        title="Fluent Emoji Flat, Copyright Microsoft Corporation",
        licence="MIT",
        homepage="https://github.com/microsoft/fluentui-emoji",
        package=Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        unpack=_icons,
        decode=_decode_svg,
    ),
}


def bring_styles(names: list[str], source: Path | None) -> Path:
    """Bring the archives of some styles; returns the folder that holds them."""
    return [bring_package(STYLES[name].package, source) for name in names][-1].parent


def open_style(name: str, command: str | None) -> Drawings:
    """A style's encoded pictures by plain code.

    Args:
        command: the name of the data set, if it brings this style when no recipe says otherwise.

    Raises:
        DatasetError: if they are not on this machine; the message says what brings them.
    """
    style = STYLES[name]
    if not style.package.path.is_file():
        raise DatasetError(
            f"{style.title} is not on this machine; run: python -m training data {command or 'RECIPE.toml'}"
            + ("" if command else ", with the recipe that asks for it")
        )
    with tarfile.open(style.package.path) as archive:
        return style.unpack(archive)


def draw(name: str, drawings: Drawings, codes: list[str], size: int) -> dict[str, NDArray[np.uint8]]:
    """uint8 [3, size, size] by code, in the order of `codes`."""
    style = STYLES[name]
    return dict(read_each(codes, lambda code: style.decode(drawings[code], size), f"{name} pictures"))


def stack(pictures: dict[str, NDArray[np.uint8]]) -> Tensor:
    """uint8 [N, 3, size, size], in their order."""
    return torch.from_numpy(np.stack(list(pictures.values())))


@dataclass(frozen=True)
class Emoji(AbstractDataset):
    """One vendor's pictures, no classes. Held out by base code, as in every other set of emoji."""

    style: StyleName = "noto"
    size: int = 64
    """Height and width, pixels. Noto and Twemoji are drawn at 64, Fluent 3D at 256, Fluent flat at any size."""
    flags: bool = False
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_size(self.size)
        check_share(self.held_out)

    def bring(self, source: Path | None = None) -> Path:
        return bring_styles([self.style], source)

    def load(self, split: Split) -> Pictures:
        drawings = open_style(self.style, "emoji" if self.style == Emoji.style else None)
        codes = [
            code
            for code in sorted(drawings)
            if not has_skin_tone(code)
            and (self.flags or not is_flag(code))
            and split_of(base_code(code), self.held_out) == split
        ]
        if not codes:
            raise DatasetError(f"no {self.style} picture is in the {split} split; held_out is {self.held_out}")
        pixels = draw(self.style, drawings, codes, self.size)
        return Pictures(
            torch.from_numpy(np.stack(list(pixels.values()))), torch.zeros(len(pixels), dtype=torch.int64), ()
        )

    def card(self, *, size: int) -> DataSource:
        style = STYLES[self.style]
        return DataSource(
            name=style.title, version=style.package.version, licence=style.licence, homepage=style.homepage, size=size
        )
