import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

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


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # Without contrast SSIM is (2 a b + c) / (a^2 + b^2 + c), with greys in [0, 1] and c = 0.01^2.
        (124, 131, 7**2 / (124**2 + 131**2 + 0.01**2 * 255**2)),  # 0.0015: neighbours, on both sides of mid-grey
        (0, 25, 25**2 / (25**2 + 0.01**2 * 255**2)),  # 0.99: far from each other, in proportion
    ],
)
def test_structure_of_flat_greys_by_hand(a, b, expected):
    output, target = (torch.full((1, 1, 16, 16), grey / 127.5 - 1, dtype=torch.float64) for grey in (a, b))
    assert float(DISTANCES["structure"](output, target)) == pytest.approx(expected, rel=1e-6)


def test_structure_is_what_the_metric_ssim_lacks(pictures):
    output = pictures.flip(3) * 0.9
    ssim = structural_similarity_index_measure((output + 1) / 2, (pictures + 1) / 2, data_range=1.0)
    assert float(DISTANCES["structure"](output, pictures)) == pytest.approx(1 - float(ssim), abs=1e-6)


def test_structure_is_of_pictures_alone():
    with pytest.raises(RecipeError, match=r"not \[2, 1, 100\]; use l1"):
        DISTANCES["structure"](torch.zeros(2, 1, 100), torch.zeros(2, 1, 100))


def test_structure_needs_pictures_as_large_as_its_window_mirrored():
    with pytest.raises(RecipeError, match="at least 6 x 6 pixels, and these are 6 x 5; take larger ones, or l1"):
        DISTANCES["structure"](torch.zeros(2, 1, 6, 5), torch.zeros(2, 1, 6, 5))
    assert float(DISTANCES["structure"](torch.zeros(2, 1, 6, 6), torch.zeros(2, 1, 6, 6))) == 0
