import pytest
import torch
from torch import nn

from training.ema import EMA, EMAConfig


def network(weight: float) -> nn.Linear:
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, weight)
    return linear


def test_after_one_halflife_the_average_is_half_way():
    ema = EMA(network(0.0), EMAConfig(halflife_kimg=1))
    for step in range(10):
        ema.update(network(1.0), nimg=50_000 + step * 100, batch_size=100)
    assert ema.average.weight.item() == pytest.approx(0.5)


def test_early_on_the_average_follows_closely():
    config = EMAConfig(halflife_kimg=1000, rampup=0.05)
    ema = EMA(network(0.0), config)
    ema.update(network(1.0), nimg=2000, batch_size=100)  # the half-life is 100 images for now
    assert ema.average.weight.item() == pytest.approx(0.5)


def test_buffers_are_copied():
    norm = nn.BatchNorm1d(2)
    ema = EMA(norm, EMAConfig())
    norm.running_mean += 3
    ema.update(norm, nimg=100, batch_size=10)
    assert torch.equal(ema.average.running_mean, norm.running_mean)
    assert not ema.average.training
