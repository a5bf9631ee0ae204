import numpy as np
import pytest
import torch

from training import judge as judge_module
from training.datasets import Pictures
from training.evaluation import table
from training.evaluation.generation import FIRST_SEED_TO_JUDGE, FIRST_SEED_TO_LEARN_FROM, Generation, evaluate
from training.judge import Judge, as_pixels, judge_of, train_classifier
from training.recipe import Recipe


@pytest.fixture
def splits(recipe: Recipe, monkeypatch) -> tuple[Pictures, Pictures]:
    monkeypatch.setattr(judge_module, "BATCH", 8)
    return recipe.data.load("train"), recipe.data.load("test")


def copier(pictures: Pictures):
    """A generator that has learnt the data by heart."""

    def sample(seeds, labels):
        pixels, own = as_pixels(pictures), pictures.labels.numpy()
        return np.stack(
            [pixels[np.flatnonzero(own == label)[int(seed) % 20]] for seed, label in zip(seeds, labels, strict=True)]
        )

    return sample


def deaf(pictures: Pictures):
    """A generator that gives noise, whatever the class."""
    return lambda seeds, labels: np.random.default_rng(int(seeds[0])).integers(
        0, 256, (len(seeds), *pictures.pixels.shape[2:], 1), np.uint8
    )


def test_good_samples_score_like_real_ones_and_noise_does_not(recipe, splits):
    train, test = splits
    judge = judge_of(train)
    protocol = Generation(judged=60)
    good = evaluate(copier(train), train, test, judge, protocol)
    bad = evaluate(deaf(train), train, test, judge, protocol)
    suffix = f"[judge@{judge.hash}]"
    assert good[f"label_accuracy{suffix}"].value > 0.95 > bad[f"label_accuracy{suffix}"].value
    assert good[f"fd{suffix}"].value < bad[f"fd{suffix}"].value
    assert good[f"coverage{suffix}"].value > bad[f"coverage{suffix}"].value
    assert good[f"cas{suffix}"].value > 0.9
    for metric in good.values():
        assert metric.n in (60, len(test), len(train))
    assert good[f"fd{suffix}"].floor.keys() == {"train_against_test", "half_against_half"}
    assert good[f"cas{suffix}"].floor["train"] == pytest.approx(good[f"judge_accuracy{suffix}"].value)
    lines = table(good).splitlines()
    assert len(lines) == len(good) + 2
    assert all(line.count("|") == 6 for line in lines)


def test_no_sample_is_used_for_two_numbers_and_none_is_real(recipe, splits):
    train, test = splits
    seen: list[int] = []

    def sampler(seeds, labels):
        seen.extend(seeds.tolist())
        return copier(train)(seeds, labels)

    evaluate(sampler, train, test, judge_of(train), Generation(judged=30, learnt_from=40))
    assert len(set(seen)) == len(seen) == 70
    assert min(seen) == FIRST_SEED_TO_JUDGE
    assert FIRST_SEED_TO_LEARN_FROM in seen


def test_the_judge_is_trained_once_and_is_the_same_the_next_time(recipe, splits):
    train, _ = splits
    first = judge_of(train)
    written = first.path.stat().st_mtime_ns
    assert judge_of(train).path.stat().st_mtime_ns == written
    first.path.unlink()
    assert judge_of(train).hash == first.hash


def test_the_exported_judge_is_the_trained_network(splits, tmp_path):
    train, test = splits
    network = train_classifier(as_pixels(train), train.labels.numpy(), 2, "training")
    judge_module.write_judge(network, as_pixels(train), tmp_path / "judge.onnx")
    opinion = Judge(tmp_path / "judge.onnx").opinion(as_pixels(test))
    np.testing.assert_allclose(opinion.logits, network.logits(as_pixels(test)), atol=1e-4)
    assert opinion.features.shape == (len(test), 64)


def test_training_a_classifier_leaves_the_random_state_alone(splits):
    train, _ = splits
    before = torch.get_rng_state()
    train_classifier(as_pixels(train), train.labels.numpy(), 2, "training")
    assert torch.equal(before, torch.get_rng_state())
