import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.tiling import CORE, Tiling, rounded_up, spans, tile_side


def test_margins_and_sides_are_what_the_network_takes():
    assert [rounded_up(halo, 4) for halo in (0, 1, 4, 7)] == [0, 4, 4, 8]
    assert tile_side(7, 4) == CORE + 16
    assert tile_side(0, 48) % 48 == 0


def test_tiles_along_a_side_by_hand():
    assert spans(24, 24, 8) == [(0, 24, 0, 24)]
    # Each has 8 of its own; the last one is moved back to the picture's end.
    assert spans(44, 24, 8) == [(0, 24, 0, 16), (8, 32, 16, 24), (16, 40, 24, 28), (20, 44, 28, 44)]


@given(st.integers(1, 900), st.integers(1, 60), st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_cores_cover_everything_once_and_lie_a_margin_inside(length, step, halo):
    length *= step
    margin, side = rounded_up(halo, step), tile_side(halo, step)
    found = spans(length, side, margin)
    assert [place for span in found for place in (span.core_start, span.core_stop)] == [
        0, *(edge for span in found[1:] for edge in (span.core_start,) * 2), length,
    ]  # fmt: skip
    for start, stop, core_start, core_stop in found:
        assert stop - start == min(side, length)
        assert 0 <= start <= core_start < core_stop <= stop <= length
        assert start % step == 0
        assert start == 0 or core_start - start >= margin
        assert stop == length or stop - core_stop >= margin


@pytest.mark.parametrize("size", [(700, 1000), (4, 900), (900, 4), (300, 280)])
def test_what_is_cut_is_joined_again(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    tiling = Tiling(*size, halo=7, multiple_of=4)
    tiles = list(tiling.cut(picture))
    assert len({tile.shape for tile in tiles}) == 1
    np.testing.assert_array_equal(tiling.join(iter(tiles)), picture)


def test_what_a_margin_does_to_a_tile_is_not_seen():
    """A network that sees 7 pixels far: the mean of all that is so near, nothing beyond the border."""
    picture = np.random.default_rng(0).integers(0, 256, (560, 400, 1), np.uint8)

    def network(pixels):
        padded = np.pad(pixels[:, :, 0].astype(int), 7)
        sums = np.lib.stride_tricks.sliding_window_view(padded, (15, 15)).sum((2, 3))
        return (sums // 225).astype(np.uint8)[:, :, None]

    tiling = Tiling(560, 400, halo=7, multiple_of=4)
    assert len(tiling.boxes) == 6
    np.testing.assert_array_equal(tiling.join(network(tile) for tile in tiling.cut(picture)), network(picture))
