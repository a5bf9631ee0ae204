import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.config import RecipeError
from training.datasets import DatasetError
from training.datasets.image_folder import ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One class, still empty."""
    (tmp_path / "cat").mkdir()
    return tmp_path


def all_of(folder: Path, **settings) -> ImageFolder:
    return ImageFolder(str(folder), **{"size": 8, "channels": 3, "held_out": 0.0, **settings})


def test_sub_folders_are_the_classes(pictures):
    loaded = ImageFolder(str(pictures), size=8, channels=1, held_out=0.0).load("train")
    assert loaded.classes == ("above", "left")
    assert loaded.pixels.shape == (120, 1, 8, 8)
    assert loaded.labels.tolist() == [0] * 60 + [1] * 60
    assert loaded.pixels[0, 0, :4].float().mean() > loaded.pixels[0, 0, 4:].float().mean()


def test_a_batch_is_scaled_to_minus_one_and_one(folder):
    Image.new("RGB", (8, 8), (0, 255, 0)).save(folder / "cat" / "green.png")
    images, labels = all_of(folder).load("train").batch(torch.tensor([0]))
    assert images[0, :, 0, 0].tolist() == [-1.0, 1.0, -1.0]
    assert labels.tolist() == [0]


def test_splits_share_no_file_and_miss_none(pictures):
    dataset = ImageFolder(str(pictures), size=8, channels=1, held_out=0.3)
    train, test = dataset.load("train"), dataset.load("test")
    assert len(train) + len(test) == 120
    assert 20 <= len(test) <= 55
    seen = {picture.numpy().tobytes() for picture in train.pixels}
    assert not any(picture.numpy().tobytes() in seen for picture in test.pixels)


def test_corrupt_files_are_named_counted_and_left_out(folder, caplog):
    (folder / "dog").mkdir()
    for name in ("cat", "dog"):
        Image.new("RGB", (8, 8)).save(folder / name / "good.png")
    (folder / "dog" / "torn.png").write_bytes((folder / "cat" / "good.png").read_bytes()[:40])
    (folder / "dog" / "text.jpg").write_text("not a picture")
    (folder / "dog" / "notes.txt").write_text("passed over")
    assert len(all_of(folder).load("train")) == 2
    assert "torn.png" in caplog.text
    assert "text.jpg" in caplog.text
    assert "2 of 4 train pictures were left out" in caplog.text


@pytest.mark.parametrize("tag", [0x0100, 0x011A], ids=["width", "resolution"])  # struct.error and TypeError in Pillow
def test_a_picture_with_damaged_exif_data_is_named_and_left_out(folder, caplog, tag):
    Image.new("RGB", (8, 8)).save(folder / "cat" / "good.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned, so that Pillow writes the rest again
    exif[0x010F] = "text"
    torn = exif.tobytes().replace(b"\x01\x0f", tag.to_bytes(2), 1)
    Image.new("RGB", (8, 8)).save(folder / "cat" / "torn.jpg", exif=torn)
    assert len(all_of(folder).load("train")) == 1
    assert "torn.jpg: its EXIF data are damaged" in caplog.text


def test_a_name_that_is_no_utf8_is_a_name(folder):
    for index in range(40):
        file = os.fsencode(folder / "cat") + b"/caf\xe9%d.png" % index
        Image.new("L", (8, 8), index).save(os.fsdecode(file))
    data = all_of(folder, held_out=0.5)
    assert len(data.load("train")) + len(data.load("test")) == 40


def test_a_class_whose_name_is_no_utf8_is_refused(folder):
    (folder / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DatasetError, match=r"names are no UTF-8: b'caf\\xe9'\. .* rename them"):
        all_of(folder).load("train")


def test_the_middle_is_cut_out(folder):
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(folder / "cat" / "wide.png")
    assert (all_of(folder).load("train").pixels == 255).all()


def test_crop_none_refuses_what_is_not_square(folder):
    Image.new("RGB", (8, 24)).save(folder / "cat" / "high.png")
    with pytest.raises(DatasetError, match="no readable picture to train on in cat"):
        all_of(folder, crop="none").load("train")


def test_transparency_shows_white_and_orientation_is_obeyed(folder):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(folder / "cat" / "clear.png")
    turned = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 8, 1).repeat(4, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.convert("RGB").save(folder / "cat" / "turned.png", exif=exif)
    clear, upright = all_of(folder).load("train").pixels
    assert (clear == 255).all()
    assert upright[:, 0].float().mean() > 250


@pytest.mark.parametrize(
    ("path", "complaint"), [("absent", "is not a folder; `path` in"), ("cat", "has no sub-folders")]
)
def test_folders_that_are_no_data_set(folder, path, complaint):
    with pytest.raises(DatasetError, match=complaint):
        all_of(folder / path).load("train")


def test_impossible_settings_are_refused():
    with pytest.raises(RecipeError, match="held_out is 1"):
        ImageFolder("x", size=8, channels=3, held_out=1.0)
    with pytest.raises(RecipeError, match="size is 0"):
        ImageFolder("x", size=0, channels=3)


def test_sixteen_bits_are_scaled_and_not_clipped(folder):
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(folder / "cat" / "deep.png")
    assert (all_of(folder).load("train").pixels == 0x80).all()


def test_a_class_that_is_held_out_whole_is_refused_for_that(folder):
    Image.new("RGB", (8, 8)).save(folder / "cat" / "only.png")
    with pytest.raises(
        DatasetError, match=r"every picture in cat of .* is held out \(held_out is 0\.999\), and none is"
    ):
        all_of(folder, held_out=0.999).load("train")


def test_a_class_without_a_picture_to_train_on_is_refused(folder):
    Image.new("RGB", (8, 8)).save(folder / "cat" / "only.png")
    (folder / "dog").mkdir()
    with pytest.raises(DatasetError, match="no readable picture to train on in dog"):
        all_of(folder).load("train")
