import pytest
import torch

from training.config import RecipeError
from training.distances import DISTANCES


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    return torch.rand(2, 3, 16, 16) * 2 - 1


@pytest.mark.parametrize("name", DISTANCES)
def test_what_is_equal_is_at_no_distance_and_what_differs_is_drawn_nearer(name, pictures):
    distance = DISTANCES[name]
    assert float(distance(pictures, pictures)) == pytest.approx(0, abs=1e-5)
    output = (pictures * 0.5).requires_grad_()
    before = distance(output, pictures)
    before.backward()
    assert before.item() > 0
    assert float(distance(output.detach() - output.grad, pictures)) < before.item()


def test_l1_is_the_mean_of_what_differs():
    assert float(DISTANCES["l1"](torch.tensor([[[-1.0, 0.5]]]), torch.tensor([[[1.0, 0.0]]]))) == 1.25


def test_a_mean_that_l1_likes_has_no_structure():
    half = torch.ones(1, 1, 16, 16)
    half[..., ::2] = -1
    grey, shifted = torch.zeros_like(half), -half
    assert DISTANCES["l1"](grey, half) < DISTANCES["l1"](shifted, half)
    assert float(DISTANCES["structure"](grey, half)) == pytest.approx(1, abs=1e-2)


def test_structure_is_of_pictures_alone():
    with pytest.raises(RecipeError, match=r"not \[2, 1, 100\]; use l1"):
        DISTANCES["structure"](torch.zeros(2, 1, 100), torch.zeros(2, 1, 100))
