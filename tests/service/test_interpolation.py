import numpy as np
import pytest

from service.interpolation import Interpolation
from service.latents import draw, slerp
from service.pieces import Pieces
from service.work import keep


def frames(way):
    """All frames of a way, as a server makes them."""
    return np.concatenate(list(Pieces(way.bundle.batcher, way.works(lambda indices: keep))))


def test_it_passes_through_its_points(digits_bundle):
    points = [digits_bundle.sample(seed=seed, class_=label) for seed, label in ((1, 0), (2, 2), (3, 1))]
    way = Interpolation(digits_bundle, points, steps=4, loop=False)
    pictures = frames(way)
    assert len(way) == len(pictures) == 9
    assert way.pixels == 9 * 8 * 8
    for index, point in zip((0, 4, 8), points, strict=True):
        np.testing.assert_array_equal(pictures[index], digits_bundle.picture(point))


def test_a_loop_comes_back_without_showing_its_first_point_twice(plain_bundle):
    points = [plain_bundle.sample(seed=seed) for seed in (1, 2, 3)]
    way = Interpolation(plain_bundle, points, steps=4, loop=True)
    pictures = frames(way)
    assert len(way) == len(pictures) == 12
    np.testing.assert_array_equal(pictures[8], plain_bundle.picture(points[2]))
    back = Interpolation(plain_bundle, [points[2], points[0]], steps=4, loop=False)
    np.testing.assert_array_equal(pictures[8:], frames(back)[:4])


def test_between_two_points_it_keeps_to_the_sphere(plain, plain_bundle, generator_of):
    points = [plain_bundle.sample(seed=seed) for seed in (5, 6)]
    pictures = frames(Interpolation(plain_bundle, points, steps=2, loop=False))
    half_way = slerp(*draw([5, 6], 4), 0.5)[None]
    np.testing.assert_array_equal(pictures[1], generator_of(plain).run({"z": half_way})[0])


def test_the_class_changes_half_way(digits_bundle):
    points = [digits_bundle.sample(seed=7, class_=label) for label in (0, 2)]
    pictures = frames(Interpolation(digits_bundle, points, steps=4, loop=False))
    first, last = (digits_bundle.picture(point) for point in points)
    for picture, expected in zip(pictures, [first, first, last, last, last], strict=True):
        np.testing.assert_array_equal(picture, expected)


def test_one_step_is_the_points_alone(plain_bundle):
    points = [plain_bundle.sample(seed=seed) for seed in range(4)]
    pictures = frames(Interpolation(plain_bundle, points, steps=1, loop=False))
    np.testing.assert_array_equal(pictures, np.stack([plain_bundle.picture(point) for point in points]))


@pytest.mark.parametrize("steps", [31, 32, 33])
def test_no_work_is_larger_than_a_batch(plain_bundle, steps):
    points = [plain_bundle.sample(seed=seed) for seed in (1, 2)]
    way = Interpolation(plain_bundle, points, steps=steps, loop=False)
    works = list(way.works(lambda indices: keep))
    assert sum(work.rows for work in works) == len(way) == steps + 1
    assert max(work.rows for work in works) <= plain_bundle.rows_per_batch
