import numpy as np
import pytest

from training.metrics import FEATURE_METRICS, frechet_distance, kernel_distance, manifold_scores


def normal(mean: float, scale: float = 1.0, n: int = 4000, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, 4)) * scale + mean).astype(np.float32)


def test_frechet_distance_of_two_gaussians():
    # |m1 - m2|^2 + d (s1 - s2)^2 = 4 * 1 + 4 * 1
    assert frechet_distance(normal(0), normal(1, 2.0, seed=1))["fd"].value == pytest.approx(8, rel=0.05)
    assert frechet_distance(normal(0), normal(0, seed=1))["fd"].value == pytest.approx(0, abs=0.02)


def test_kernel_distance_by_hand():
    # Constant features c and 0 in one dimension: k(x, y) = (x y + 1)^3, so MMD^2 = (c^2 + 1)^3 + 1 - 2.
    real, fake = np.full((50, 1), 1.0, np.float32), np.zeros((50, 1), np.float32)
    assert kernel_distance(real, fake)["kd"].value == pytest.approx(2**3 + 1 - 2)


def test_manifold_scores_tell_quality_from_diversity():
    real = normal(0, n=500)
    timid = manifold_scores(real, normal(0, 0.2, n=500, seed=1))
    wild = manifold_scores(real, normal(0, 5.0, n=500, seed=1))
    assert timid["precision"].value > 0.95
    assert timid["recall"].value < 0.5
    assert wild["precision"].value < 0.3
    assert wild["coverage"].value < 0.5


@pytest.mark.parametrize("name", FEATURE_METRICS)
def test_the_same_features_give_the_same_numbers(name):
    real, fake = normal(0, n=300), normal(0.5, n=300, seed=1)
    assert FEATURE_METRICS[name](real, fake) == FEATURE_METRICS[name](real, fake)
