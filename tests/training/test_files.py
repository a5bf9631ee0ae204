import os

import pytest

from training.files import written_aside


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_when_it_is_whole(tmp_path, durable):
    path = tmp_path / "a.png"
    path.write_text("old")
    with written_aside(path, durable=durable) as aside:
        aside.write_text("new")
        assert (aside.suffix, path.read_text()) == (".png", "old")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), written_aside(path) as aside:
        aside.write_text("half\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_durable_is_on_the_disk_with_its_name(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with written_aside(tmp_path / "state.pt", durable=True) as aside:
        aside.write_text("new")
    assert synced == [(tmp_path / "state.pt").stat().st_ino, tmp_path.stat().st_ino]
