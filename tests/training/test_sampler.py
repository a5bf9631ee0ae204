import torch

from training.sampler import EpochSampler


def test_an_epoch_shows_everything_once():
    sampler = EpochSampler(12, 4, seed=0)
    seen = torch.cat([sampler.draw() for _ in range(3)])
    assert sorted(seen.tolist()) == list(range(12))


def test_epochs_and_seeds_differ():
    sampler = EpochSampler(50, 50, seed=0)
    first, second = sampler.draw(), sampler.draw()
    assert not torch.equal(first, second)
    assert not torch.equal(first, EpochSampler(50, 50, seed=1).draw())


def test_a_restored_sampler_goes_on_where_the_other_stood():
    sampler = EpochSampler(20, 6, seed=5)
    for _ in range(8):
        sampler.draw()
    restored = EpochSampler(20, 6, seed=5)
    restored.load_state_dict(sampler.state_dict())
    for _ in range(8):
        assert torch.equal(sampler.draw(), restored.draw())
