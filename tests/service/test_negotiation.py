import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.negotiation import quality


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("image/png", 1),
        ("IMAGE/PNG ; q=0.3", 0.3),
        ("image/*;q=0.2, */*;q=0.9", 0.2),
        ("*/*;q=0.9, image/png;q=0", 0),
        ("image/webp", 0),
        ("image/png;q=high", 0),
        ("image/png;q=2", 0),
        ("image/png;q=nan", 0),
        ("image/png;level=1;q=0.5", 0.5),
        ("", 0),
    ],
)
def test_the_most_specific_range_decides(accept, expected):
    assert quality(accept, "image/png") == expected


@given(st.text())
def test_any_header_has_an_answer(accept):
    assert 0 <= quality(accept, "image/png") <= 1
