import pytest
import torch

from training.penalties import PENALTIES, r1, r2

REAL, FAKE = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_r1_of_a_linear_discriminator():
    a = torch.arange(3 * 8 * 8.0)
    penalty = r1(lambda x, y: x.flatten(1) @ a, REAL, FAKE, None)
    torch.testing.assert_close(penalty, a.square().sum() / 2)  # the gradient is `a` everywhere


def test_r1_looks_at_real_images_and_r2_at_generated_ones():
    def discriminator(x, y):
        return x.square().flatten(1).sum(1) / 2  # the gradient is x itself

    torch.testing.assert_close(r1(discriminator, REAL, FAKE, None), REAL.square().flatten(1).sum(1).mean() / 2)
    torch.testing.assert_close(r2(discriminator, REAL, FAKE, None), FAKE.square().flatten(1).sum(1).mean() / 2)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_trains_the_discriminator(name):
    weight = torch.ones((), requires_grad=True)
    penalty = PENALTIES[name](lambda x, y: weight * x.square().flatten(1).sum(1), REAL, FAKE, None)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 2 * penalty.detach())  # quadratic in the weight


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_hands_the_labels_on(name):
    seen = []

    def discriminator(x, y):
        seen.append(y)
        return x.flatten(1).sum(1)

    labels = torch.tensor([0, 1, 2, 3])
    PENALTIES[name](discriminator, REAL, FAKE, labels)
    assert seen[0] is labels
