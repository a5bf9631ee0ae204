import pytest

from training.schedules import Anneal


def test_cosine_goes_from_start_to_end_through_the_middle():
    anneal = Anneal(start=2.0, end=1.0)
    assert anneal.at(0) == pytest.approx(2.0)
    assert anneal.at(0.5) == pytest.approx(1.5)
    assert anneal.at(1) == pytest.approx(1.0)
    assert anneal.at(1.5) == pytest.approx(1.0)


def test_a_number_is_a_constant():
    anneal = Anneal.model_validate(0.3)
    assert anneal.at(0) == anneal.at(0.7) == pytest.approx(0.3)
