"""Against a miniature archive of each kind, so that nothing is downloaded."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.manifest import file_sha256
from training.config import RecipeError
from training.datasets import DatasetError, emoji
from training.datasets.edges import DETECTORS, Edges, line_drawing
from training.datasets.emoji import STYLES, Emoji, base_code, has_skin_tone, is_flag, plain_code
from training.datasets.emoji_domains import EmojiDomains
from training.datasets.fluent import Fluent

CODES = [f"1f{number:03x}" for number in range(0x400, 0x43C)]
FOLDERS = {"noto": "img/google/64/{}.png", "twemoji": "img/twitter/64/{}.png", "fluent-3d": "assets/{}.webp"}


def picture(index: int, suffix: str) -> bytes:
    """A square of a colour of its own on nothing."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((index * 4 % 256, 255 - index * 4 % 256, 80, 255), (16, 16, 48, 48))
    content = io.BytesIO()
    image.save(content, "WEBP" if suffix == ".webp" else "PNG", lossless=True)
    return content.getvalue()


def contents(style: str) -> dict[str, bytes]:
    if style == "fluent-flat":
        body = '<path fill="#f00" d="M8 8h16v16H8z"/>'
        icons = {"icons": {code: {"body": body} for code in CODES}, "width": 32, "height": 32}
        return {"icons.json": json.dumps(icons).encode(), "chars.json": json.dumps({c: c for c in CODES}).encode()}
    names = {code: FOLDERS[style].format(code) for code in [*CODES, "1f44b-1f3fb", "1f1e6-1f1fa"]}
    return {name: picture(index, Path(name).suffix) for index, name in enumerate(names.values())}


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the four archives, whose sums the module is told to expect."""
    folder = tmp_path / "brought"
    folder.mkdir()
    for name, style in STYLES.items():
        file = folder / style.package.file_name
        with tarfile.open(file, "w:gz") as archive:
            for member, content in contents(name).items():
                entry = tarfile.TarInfo(f"package/{member}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        package = replace(style.package, sha256=file_sha256(file))
        monkeypatch.setitem(emoji.STYLES, name, replace(style, package=package))
    return folder


@pytest.mark.parametrize(
    ("code", "base"),
    [
        ("1f44b-1f3fd", "1f44b"),
        ("1f468-1f3fb-200d-1f373", "1f9d1-200d-1f373"),
        ("1f469-200d-1f373", "1f9d1-200d-1f373"),
        ("1f3c3-200d-2640-200d-27a1", "1f3c3"),
        ("2640", "2640"),
        ("1f559", "1f550"),
        ("1f468-200d-1f468-200d-1f466", "1f9d1-200d-1f9d1-200d-1f9d2"),
        ("1f46a", "1f9d1-200d-1f9d1-200d-1f9d2"),
        ("1f1f2-1f1eb", "1f1eb-1f1f7"),
    ],
)
def test_near_copies_share_a_base(code, base):
    assert base_code(code) == base
    assert base_code(base) == base


def test_codes_are_spelt_in_one_way():
    assert plain_code("0023-fe0f-20e3") == plain_code("23-20e3") == "23-20e3"
    assert has_skin_tone("1f44b-1f3fd")
    assert is_flag("1f1e6-1f1fa")
    assert not is_flag("1f44b")


def test_pairs_show_the_same_and_splits_share_no_base(archives):
    Fluent().bring(archives)
    train, test = Fluent(size=32, held_out=0.3).load("train"), Fluent(size=32, held_out=0.3).load("test")
    assert len(train) + len(test) == len(CODES)
    assert {base_code(key) for key in train.keys}.isdisjoint(base_code(key) for key in test.keys)
    assert train.sources.shape == train.targets.shape == (len(train), 3, 32, 32)
    assert train.sources[0, :, 0, 0].tolist() == [255, 255, 255]  # transparent shows white
    assert train.sources[0, :, 16, 16].tolist() == [255, 0, 0]


def test_no_base_is_shown_in_both_domains_and_held_out_partners_are_true(archives):
    data = EmojiDomains(held_out=0.3)
    data.bring(archives)
    train, test = data.load("train"), data.load("test")
    assert {base_code(key) for key in train.a_keys}.isdisjoint(base_code(key) for key in train.b_keys)
    assert test.a_keys == test.b_keys
    assert str(train) == f"two domains of {len(train.a)} and {len(train.b)} items, no pairs among them"
    assert str(test) == f"two domains of {len(test.a)} and {len(test.a)} items, {len(test.a)} pairs among them"
    assert {base_code(key) for key in test.a_keys}.isdisjoint(base_code(key) for key in train.a_keys + train.b_keys)
    assert not any(is_flag(key) or has_skin_tone(key) for key in train.a_keys)
    swapped = EmojiDomains(a="noto", b="twemoji", held_out=0.3).load("train")
    assert swapped.a_keys == train.b_keys
    assert swapped.b_keys == train.a_keys


def test_the_same_domain_twice_is_refused():
    with pytest.raises(RecipeError, match="a and b are both noto"):
        EmojiDomains(a="noto", b="noto")


def test_a_picture_that_cannot_be_decoded_is_named_counted_and_left_out(archives, monkeypatch, caplog):
    Emoji().bring(archives)
    style = emoji.STYLES["noto"]
    torn = lambda archive: {**style.unpack(archive), "1f400": b"not a picture"}  # noqa: E731
    monkeypatch.setitem(emoji.STYLES, "noto", replace(style, unpack=torn))
    assert len(Emoji(held_out=0.0).load("train")) == len(CODES) - 1
    assert "left out 1f400" in caplog.text
    assert f"1 of {len(CODES)} noto pictures were left out" in caplog.text


def test_what_is_not_there_says_what_brings_it():
    with pytest.raises(DatasetError, match="python -m training data fluent"):
        Fluent().load("train")
    with pytest.raises(DatasetError, match=r"python -m training data emoji-domains$"):
        EmojiDomains(a="noto", b="twemoji").load("train")


def test_a_style_that_the_name_alone_does_not_bring_is_brought_by_its_recipe():
    for data in (Emoji(style="twemoji"), EmojiDomains(a="fluent-3d"), Edges(pictures=Emoji(style="fluent-3d"))):
        with pytest.raises(DatasetError, match=r"python -m training data RECIPE\.toml, with the recipe"):
            data.load("train")


def test_an_archive_with_another_content_is_not_kept(archives):
    file = archives / STYLES["noto"].package.file_name
    file.write_bytes(b"something else")
    with pytest.raises(DatasetError, match="sha256"):
        Emoji().bring(archives)
    with pytest.raises(DatasetError, match="does not hold"):
        Emoji().bring(archives.parent / "cache")


def test_without_npm_it_says_how_else(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatasetError, match=r"npm.*not installed: apt-get install npm.*--from PATH"):
        Emoji().bring()


@pytest.mark.parametrize("detector", DETECTORS)
def test_lines_are_dark_on_white_and_where_the_edges_are(detector):
    pixels = np.full((3, 32, 32), 255, np.uint8)
    pixels[0, 8:24, 8:24] = 40
    drawing = line_drawing(pixels, detector)
    assert drawing.shape == (1, 32, 32)
    assert drawing[0, 16, 7:10].min() < 100
    assert drawing[0, 16, 16] == drawing[0, 2, 2] == 255
    assert (line_drawing(np.full((1, 32, 32), 90, np.uint8), detector) == 255).all()


def test_drawings_belong_to_their_pictures(archives):
    data = Edges(pictures=Emoji(held_out=0.3))
    data.bring(archives)
    test = data.load("test")
    assert (test.targets == Emoji(held_out=0.3).load("test").pixels).all()
    assert (test.sources[3, 0].numpy() == line_drawing(test.targets[3].numpy(), data.detector)[0]).all()
    assert "Noto" in data.card(size=3).name
