from dataclasses import replace

import numpy as np
import pytest
import torch

from service.manifest import Latent
from training import judge as judge_module
from training.datasets import Pictures
from training.evaluation import EvaluationError, Subject, table
from training.evaluation import generation as generation_module
from training.evaluation.generation import (
    FIRST_SEED_TO_JUDGE,
    FIRST_SEED_TO_LEARN_FROM,
    Generation,
    evaluate,
    evaluate_without_classes,
)
from training.judge import Judge, as_pixels, judge_of, train_classifier
from training.metrics import FEATURE_METRICS
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


def some(pictures: Pictures, count: int) -> Pictures:
    return replace(pictures, pixels=pictures.pixels[:count], labels=pictures.labels[:count])


def unlabelled(pictures: Pictures, classes: tuple[str, ...]) -> Pictures:
    return Pictures(pictures.pixels, torch.zeros_like(pictures.labels), classes)


def of_data(recipe: Recipe, splits: tuple[Pictures, Pictures], monkeypatch) -> Subject:
    """A generator of noise that learnt from these splits."""
    monkeypatch.setattr(type(recipe.data), "load", lambda self, split: splits[split == "test"])
    noise = deaf(splits[0])

    def run(inputs):
        return noise(np.arange(len(inputs["z"])), inputs["y"])

    return Subject("mine", "generate", recipe, run, Latent(z_dim=2))


@pytest.mark.parametrize("classes", [(), ("all",)])
def test_without_classes_to_tell_apart_the_judge_of_likeness_is_asked_and_no_class(
    recipe, splits, judge, monkeypatch, classes
):
    monkeypatch.setattr(generation_module, "perceptual_judge", lambda: judge)
    monkeypatch.setattr(generation_module, "judge_of", None)  # would learn nothing, and be right of anything
    splits = tuple(unlabelled(pictures, classes) for pictures in splits)
    report = Generation(judged=60).measure(of_data(recipe, splits, monkeypatch), [])
    some_features = np.random.default_rng(0).standard_normal((2, 20, 2), np.float32)
    names = [name for compare in FEATURE_METRICS.values() for name in compare(*some_features)]
    assert list(report.metrics) == [f"{name}[judge@{judge.hash}]" for name in names]
    assert not report.files
    train, test = splits
    good = evaluate_without_classes(copier(train), train, test, judge, Generation(judged=60))
    for name in names:
        ours, noise = (metrics[f"{name}[judge@{judge.hash}]"] for metrics in (good, report.metrics))
        assert (ours.value < noise.value) == (ours.better == "lower")
        assert noise.floor.keys() == {"train_against_test", "half_against_half"}
        assert ours.judge == judge.hash


def test_content_is_the_mean_of_the_last_block_over_its_places(judge):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    content, last = judge.content(pixels), judge.features(pixels)[:, -320 * 16 :].reshape(3, 320, 16)
    # The five blocks share a length of 1, so that the squares of one sum to 1/5.
    np.testing.assert_allclose((last**2).sum((1, 2)), 1 / 5, rtol=1e-4)
    np.testing.assert_allclose(content, last.mean(2) * (320 * 16 * 5) ** 0.5, rtol=1e-4, atol=1e-6)


def test_too_few_pictures_or_samples_are_refused_before_a_judge_is_trained(recipe, splits, monkeypatch):
    monkeypatch.setattr(generation_module, "judge_of", None)
    train, test = splits
    few = of_data(recipe, (train, some(test, 13)), monkeypatch)
    with pytest.raises(EvaluationError, match=rf"13 pictures are held out of {len(train) + 13}, .* until 14 are held"):
        Generation(judged=60).measure(few, [])
    few = of_data(recipe, (some(train, 6), test), monkeypatch)
    with pytest.raises(EvaluationError, match=r"6 pictures are left to train on .* lower held_out"):
        Generation(judged=60).measure(few, [])
    with pytest.raises(EvaluationError, match="--judged is 6; 7 samples are needed"):
        Generation(judged=6).measure(of_data(recipe, splits, monkeypatch), [])


def test_the_fewest_pictures_and_samples_that_are_taken_can_be_measured(recipe, splits, monkeypatch):
    train, test = splits
    fewest = of_data(recipe, (some(train, 7), some(test, 14)), monkeypatch)
    report = Generation(judged=7, learnt_from=2).measure(fewest, [])
    assert np.isfinite([metric.value for metric in report.metrics.values()]).all()


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
