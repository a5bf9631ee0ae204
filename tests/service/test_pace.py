import pytest

from service.pace import OUTLIER, Pace


def test_it_learns_from_full_batches_and_hardly_from_small_ones():
    for pixels, expected in ((1000, 1.9), (1, 1.9999)):
        pace = Pace(2.0, max_pixels=1000)
        pace.has_run(pixels, pixels * 1.0)
        assert pace.seconds_per_pixel == pytest.approx(expected, rel=1e-6)
        assert pace.at_best == pace.seconds_per_pixel


def test_one_batch_that_stood_still_says_little_and_the_best_is_remembered():
    pace = Pace(1.0, max_pixels=100)
    pace.has_run(100, 1e6)
    assert pace.seconds_per_pixel == pytest.approx(1 + 0.1 * (OUTLIER - 1))
    assert pace.at_best == 1.0


def test_turns_of_others_count_once_for_each_batch():
    pace = Pace(0.01, max_pixels=100)
    for _ in range(1000):
        pace.has_waited(2.0)
    assert pace.seconds_for(0) == 0
    assert pace.seconds_for(250) == pytest.approx(2.5 + 3.5 * 2, rel=1e-6)


def test_batches_are_as_large_as_the_speed_allows():
    assert Pace(0.01, max_pixels=100).max_pixels == 100
    assert Pace(0.01, max_pixels=100, batch_seconds=0.5).max_pixels == 50
    assert Pace(9.0, max_pixels=100, batch_seconds=0.5).max_pixels == 1
