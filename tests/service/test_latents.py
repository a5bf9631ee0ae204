import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidLatent
from service.latents import SCHEMES, draw, fresh_seed, slerp

# Written down once: a change of numpy or of the scheme that moved these would move every published picture.
GOLDEN = {
    ("philox", 0): [0.059911035, 0.015559634, -1.1644385, -0.13264713],
    ("philox", 42): [0.18170474, -1.2426393, -0.551553, 0.36648002],
    ("philox", 2**64 - 1): [-1.7444787, -0.48715827, 1.5449836, -0.9327644],
    ("stylegan", 42): [0.49671414, -0.1382643, 0.64768857, 1.5230298],
}


@pytest.mark.parametrize(("scheme", "seed"), GOLDEN)
def test_draws_the_golden_vectors(scheme, seed):
    np.testing.assert_array_equal(draw([seed], 4, scheme)[0], np.float32(GOLDEN[scheme, seed]))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), st.integers(1, 33))
def test_a_row_depends_on_its_seed_alone(seeds, z_dim):
    together = draw(seeds, z_dim)
    assert together.shape == (len(seeds), z_dim)
    assert together.dtype == np.float32
    for row, seed in zip(together, seeds, strict=True):
        np.testing.assert_array_equal(row, draw([seed], z_dim)[0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_refuses_seeds_out_of_range(scheme):
    limit = SCHEMES[scheme][1]
    draw([limit - 1], 1, scheme)
    for seed in (-1, limit):
        with pytest.raises(InvalidLatent, match=f"seed {seed} .* 0 to {limit - 1}"):
            draw([0, seed], 1, scheme)


def test_fresh_seeds_are_exact_in_javascript():
    seeds = {fresh_seed() for _ in range(100)}
    assert len(seeds) > 90
    assert max(seeds) < 2**32


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 64))
def test_slerp_begins_and_ends_exactly(first, last, z_dim):
    a, b = draw([first, last], z_dim)
    assert slerp(a, b, 0).tobytes() == a.tobytes()
    assert slerp(a, b, 1).tobytes() == b.tobytes()


def test_slerp_at_a_right_angle():
    a, b = np.float32([2, 0]), np.float32([0, 2])
    # omega is 90 degrees: sin(60) / sin(90) of the one, sin(30) / sin(90) of the other.
    expected = np.float32([2 * np.sqrt(3) / 2, 2 * 0.5])
    np.testing.assert_allclose(slerp(a, b, 1 / 3), expected, rtol=1e-6)
    np.testing.assert_allclose(slerp(a, b, 0.5), np.float32([np.sqrt(2), np.sqrt(2)]), rtol=1e-6)


def test_slerp_between_lengths_goes_by_angle():
    # At 45 degrees each of the two counts sin(45) = 0.70710678 of its own length.
    np.testing.assert_allclose(slerp(np.float32([1, 0]), np.float32([0, 3]), 0.5), [0.70710678, 2.1213203], rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "half"), [([1, 2], [1, 2], [1, 2]), ([1, 2], [3, 6], [2, 4]), ([1, 2], [-1, -2], [0, 0])]
)
def test_slerp_between_parallels_is_the_straight_line(a, b, half):
    np.testing.assert_allclose(slerp(np.float32(a), np.float32(b), 0.5), half, atol=1e-6)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.floats(0, 1))
def test_slerp_keeps_a_typical_norm(first, last, t):
    a, b = draw([first, last], 512)
    between = slerp(a, b, t)
    assert between.dtype == np.float32
    # Norms of N(0, I) are sqrt(512) = 22.6, give or take 0.7; a straight line would pass at 16.
    assert 18 < np.linalg.norm(between) < 27


def test_slerp_is_the_same_both_ways():
    a, b = draw([1, 2], 64)
    np.testing.assert_allclose(slerp(a, b, 0.25), slerp(b, a, 0.75), rtol=1e-5)
