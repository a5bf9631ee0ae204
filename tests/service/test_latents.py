import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidLatent
from service.latents import SCHEMES, draw, fresh_seed

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
