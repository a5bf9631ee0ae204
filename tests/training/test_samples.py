import numpy as np
import pytest

from training.samples import strips


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (2, [[0, 10, 1, 11], [2, 12, 3, 13]]),  # the fifth fills no row
        (5, [[0, 10], [1, 11], [2, 12], [3, 13], [4, 14]]),
        (9, [[0, 10], [1, 11], [2, 12], [3, 13], [4, 14]]),
    ],
)
def test_what_belongs_together_stands_side_by_side(rows, expected):
    sources = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    assert strips([sources, sources + 10], rows).squeeze((2, 3, 4)).tolist() == expected


def test_grey_stands_beside_colour_as_a_picture_of_greys():
    grey = np.full((2, 4, 4, 1), 100, np.uint8)
    colour = np.zeros((2, 4, 4, 3), np.uint8)
    shown = strips([grey, colour], 2)
    assert shown.shape == (2, 2, 4, 4, 3)
    assert (shown[:, 0] == 100).all()
