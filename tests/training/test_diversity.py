import pytest
import torch

from training.datasets import Pictures
from training.diversity import Diversity, RandomFeatures, spread

PIXELS = torch.randint(0, 256, (40, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def data(labels: torch.Tensor, classes: tuple[str, ...]) -> Pictures:
    return Pictures(PIXELS, labels, classes)


def copies(seeds, labels):
    return torch.zeros(len(seeds), 1, 16, 16)


def test_real_pictures_are_as_diverse_as_themselves():
    pictures = data(torch.arange(40) % 2, ("even", "odd"))

    def by_heart(seeds, labels):
        return pictures.batch(
            torch.tensor([2 * (seed % 20) + label for seed, label in zip(seeds, labels, strict=True)])
        )[0]

    assert Diversity(pictures)(by_heart) == pytest.approx(1, abs=0.1)
    assert Diversity(pictures)(copies) == 0


def test_a_class_of_one_picture_counts_for_nothing():
    labels = torch.zeros(40, dtype=torch.int64)
    labels[0] = 1
    assert Diversity(data(labels, ("many", "one")))(copies) == 0
    assert Diversity(Pictures(PIXELS[:1], labels[:1], ("many", "one")))(copies) is None


def test_spread_is_zero_for_copies_and_grows_with_differences():
    assert spread(torch.ones(5, 3)) == 0
    assert spread(torch.tensor([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(5)


def test_random_features_are_the_same_for_everyone():
    before = torch.get_rng_state()
    images = torch.ones(1, 1, 28, 28)
    assert torch.equal(RandomFeatures(1)(images), RandomFeatures(1)(images))
    assert torch.equal(before, torch.get_rng_state())
