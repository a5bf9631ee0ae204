import numpy as np
import pytest
from PIL import Image

from training.datasets import DatasetError
from training.datasets.pair_folders import PairFolders
from training.datasets.two_folders import TwoFolders


def save(path, colour, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Ten pairs: red becomes blue."""
    for index in range(10):
        save(tmp_path / "A" / f"{index}.png", "red")
        save(tmp_path / "B" / f"{index}.bmp", "blue")
    return tmp_path


def colour(items):
    return items[0, :, 4, 4].tolist()


def test_files_of_the_same_name_are_pairs(folder):
    pairs = PairFolders(str(folder), size=8, held_out=0.0).load("train")
    assert len(pairs) == 10
    assert (colour(pairs.sources), colour(pairs.targets)) == ([255, 0, 0], [0, 0, 255])
    back = PairFolders(str(folder), size=8, held_out=0.0, direction="b-to-a").load("train")
    assert colour(back.sources) == [0, 0, 255]


def test_splits_share_no_pair(folder):
    data = PairFolders(str(folder), size=8, held_out=0.4)
    train, test = data.load("train"), data.load("test")
    assert set(train.keys).isdisjoint(test.keys)
    assert len(train) + len(test) == 10


def test_what_is_torn_or_alone_is_named_counted_and_left_out(folder, caplog):
    (folder / "B" / "3.bmp").write_bytes(b"BM")
    (folder / "B" / "4.bmp").unlink()
    assert len(PairFolders(str(folder), size=8, held_out=0.0).load("train")) == 8
    assert "3.bmp" in caplog.text
    assert "4.png: it has no partner" in caplog.text
    assert "1 of 9 train pairs were left out" in caplog.text


def test_pairs_of_two_shapes_are_named_and_left_out(folder, caplog):
    save(folder / "A" / "3.png", "red", (64, 32))
    save(folder / "B" / "3.bmp", "blue", (32, 32))
    assert len(PairFolders(str(folder), size=8, held_out=0.0).load("train")) == 9
    assert "left out 3: A is 64 x 32, B 32 x 32; give both one shape" in caplog.text


@pytest.mark.parametrize("scaled", [(50, 33), (50, 34), (100, 67), (200, 134), (49, 33)])
def test_pairs_may_differ_in_scale_and_by_its_rounding(folder, scaled):
    save(folder / "A" / "3.png", "red", (100, 67))
    save(folder / "B" / "3.bmp", "blue", scaled)
    assert len(PairFolders(str(folder), size=8, held_out=0.0).load("train")) == 10


@pytest.mark.parametrize("other", [(50, 31), (50, 36), (67, 100), (100, 65)])
def test_what_is_more_than_rounding_is_another_shape(folder, other):
    save(folder / "A" / "3.png", "red", (100, 67))
    save(folder / "B" / "3.bmp", "blue", other)
    assert len(PairFolders(str(folder), size=8, held_out=0.0).load("train")) == 9


def test_halves_of_one_picture_are_a_pair(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8, 0] = pixels[:, 8:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    pairs = PairFolders(str(tmp_path), size=8, layout="side-by-side", held_out=0.0).load("train")
    assert (colour(pairs.sources), colour(pairs.targets)) == ([255, 0, 0], [0, 0, 255])


def test_folders_that_hold_no_pairs(tmp_path):
    with pytest.raises(DatasetError, match="no sub-folder A and no B"):
        PairFolders(str(tmp_path), size=8).load("train")
    with pytest.raises(DatasetError, match="absent is not a folder; `path` in"):
        PairFolders(str(tmp_path / "absent"), size=8).bring()


def test_two_folders_stay_apart_but_hold_out_the_same_names(folder):
    data = TwoFolders(str(folder / "A"), str(folder / "B"), size=8, held_out=0.4)
    train, test = data.load("train"), data.load("test")
    assert test.a_keys == test.b_keys
    assert len(train.a) + len(test.a) == 10
    assert colour(train.b) == [0, 0, 255]


def test_an_empty_folder_is_no_domain(folder):
    (folder / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no picture"):
        TwoFolders(str(folder / "A"), str(folder / "empty"), size=8).bring()
    with pytest.raises(DatasetError, match="absent is not a folder; `a` and `b` in"):
        TwoFolders(str(folder / "A"), str(folder / "absent"), size=8).bring()
