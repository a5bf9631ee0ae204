import math

import pytest
import torch

from training.objectives import OBJECTIVES
from training.objectives.hinge import Hinge
from training.objectives.non_saturating import NonSaturating
from training.objectives.relativistic import Relativistic

REAL, FAKE = torch.tensor([2.0, -0.5]), torch.tensor([-3.0, 1.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_hinge_by_hand():
    # relu(1 - [2, -.5]) = [0, 1.5]; relu(1 + [-3, 1]) = [0, 2]
    assert Hinge().discriminator_loss(REAL, FAKE).item() == pytest.approx(0.75 + 1.0)
    assert Hinge().generator_loss(None, FAKE).item() == pytest.approx(1.0)


def test_non_saturating_by_hand():
    expected = (softplus(-2) + softplus(0.5)) / 2 + (softplus(-3) + softplus(1)) / 2
    assert NonSaturating().discriminator_loss(REAL, FAKE).item() == pytest.approx(expected)
    assert NonSaturating().generator_loss(None, FAKE).item() == pytest.approx((softplus(3) + softplus(-1)) / 2)


def test_relativistic_by_hand():
    # fake - real = [-5, 1.5]
    assert Relativistic().discriminator_loss(REAL, FAKE).item() == pytest.approx((softplus(-5) + softplus(1.5)) / 2)
    assert Relativistic().generator_loss(REAL, FAKE).item() == pytest.approx((softplus(5) + softplus(-1.5)) / 2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_discriminator_prefers_separated_logits(name):
    objective = OBJECTIVES[name]()
    high, low = torch.full((4,), 3.0), torch.full((4,), -3.0)
    assert objective.discriminator_loss(high, low) < objective.discriminator_loss(low, high)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_generator_wants_its_logits_up(name):
    objective = OBJECTIVES[name]()
    fake = torch.zeros(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective.generator_loss(torch.zeros(4), fake), fake)
    assert (gradient < 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_extreme_logits_stay_finite(name):
    objective = OBJECTIVES[name]()
    high, low = torch.full((4,), 1e4), torch.full((4,), -1e4)
    assert objective.discriminator_loss(low, high).isfinite()
    assert objective.generator_loss(high, low).isfinite()
