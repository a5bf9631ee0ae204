"""Generators whose numbers are known: one that knows the truth, one that does nothing, one that gives noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from service.manifest import Latent
from training.compare import BEGIN, END, compare
from training.evaluation import EvaluationError, Subject, table
from training.evaluation import translation as translation_module
from training.evaluation.perceptual import PerceptualJudge
from training.evaluation.translation import (
    BATCH,
    IDENTITY,
    STRIP_FILE,
    Translation,
    held_out,
    likeness,
    mean_l1,
    mean_ssim,
)
from training.recipe import Recipe


@pytest.fixture(autouse=True)
def _made_once(judge: PerceptualJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation_module, "perceptual_judge", lambda: judge)
    monkeypatch.setattr("training.compare.perceptual_judge", lambda: judge)


@pytest.fixture
def two_recipes(recipe: Recipe, tmp_path: Path) -> Recipe:
    """A recipe whose data are negatives: white squares on black, and the reverse."""
    for index in range(20):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[index % 8 : 8 + index % 8, 4:12] = 255 - 4 * index
        for side, shown in {"A": pixels, "B": 255 - pixels}.items():
            (tmp_path / "pairs" / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown).save(tmp_path / "pairs" / side / f"{index}.png")
    return recipe_with(recipe, name="pair-folders", path=str(tmp_path / "pairs"), size=16, held_out=0.3)


def recipe_with(recipe: Recipe, **data) -> Recipe:
    return Recipe.model_validate({**recipe.resolved(), "data": data})


def subject(recipe: Recipe, run, name: str = "mine", **more) -> Subject:
    return Subject(name, "translate", recipe, run, None, **more)


def negative(inputs):
    return 255 - inputs["image"]


def nothing(inputs):
    return inputs["image"]


def noise(inputs):
    return np.random.default_rng(0).integers(0, 256, inputs["image"].shape, np.uint8)


def test_the_truth_the_identity_and_noise_get_the_numbers_they_deserve(two_recipes, judge):
    others = [subject(two_recipes, nothing, "lazy"), subject(two_recipes, noise, "wild")]
    report = Translation().measure(subject(two_recipes, negative), others)
    distance = report.metrics[f"judge_distance[judge@{judge.hash}]"]
    assert distance.value == pytest.approx(0, abs=1e-6)
    assert report.metrics["ssim"].value == pytest.approx(1)
    assert report.metrics["l1"].value == 0
    assert distance.beside.keys() == {IDENTITY, "lazy", "wild"}
    for metric in report.metrics.values():
        assert metric.beside.get(IDENTITY) == metric.beside.get("lazy")
    assert distance.beside["wild"] > 0.5
    nearest = report.metrics[f"nearest_training_distance[judge@{judge.hash}]"]
    assert nearest.value == pytest.approx(nearest.floor["truth"])
    assert nearest.n == len(two_recipes.data.load("test"))
    shown = report.pictures[STRIP_FILE]
    assert shown.width > 4 * 16
    lines = table(report.metrics).splitlines()
    assert "| identity | lazy | wild |" in lines[0]
    assert len({line.count("|") for line in lines}) == 1


def test_what_comes_back_from_there_and_back_is_compared_with_the_source(two_recipes):
    report = Translation().measure(subject(two_recipes, negative, back=negative), [])
    assert report.metrics["cycle_l1"].value == 0
    report = Translation().measure(subject(two_recipes, negative, back=nothing), [])
    assert report.metrics["cycle_l1"].value > 0.5


def test_a_generator_that_is_deaf_to_z_is_told_from_one_that_is_not(two_recipes, judge):
    def varied(inputs):
        return np.where(inputs["z"][:, :1, None, None] > 0, inputs["image"], 255 - inputs["image"])

    for run, spread in ((varied, True), (negative, False)):
        report = Translation().measure(replace(subject(two_recipes, run), latent=Latent(z_dim=2)), [])
        assert (report.metrics[f"seed_distance[judge@{judge.hash}]"].value > 0.01) == spread


def test_only_generators_of_the_same_data_and_direction_are_compared(two_recipes, recipe):
    with pytest.raises(EvaluationError, match="mine and other cannot be compared"):
        Translation().measure(subject(two_recipes, nothing), [subject(recipe, nothing, "other")])
    with pytest.raises(EvaluationError, match="cannot be compared"):
        Translation().measure(subject(two_recipes, nothing), [subject(two_recipes, nothing, "other", direction="ba")])


def test_partners_of_two_domains_are_found_by_key_in_either_direction(two_recipes, recipe, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "pairs" / "B" / "alone.png")
    a, b = (str(tmp_path / "pairs" / side) for side in "AB")
    domains = recipe_with(recipe, name="two-folders", a=a, b=b, size=16, held_out=0.3)
    there, back = (held_out(subject(domains, nothing, direction=way)) for way in ("ab", "ba"))
    assert (255 - there.sources == there.targets).all()
    assert (there.sources == back.targets).all()
    assert len(there.sources) == len(two_recipes.data.load("test"))


def test_pictures_without_a_truth_are_refused(recipe):
    with pytest.raises(EvaluationError, match="no truth"):
        Translation().measure(subject(recipe, nothing), [])


def test_pictures_too_small_for_ssim_are_refused(two_recipes):
    small = two_recipes.model_copy(update={"data": replace(two_recipes.data, size=4)})
    with pytest.raises(EvaluationError, match="mine translates pictures of 4 x 4 pixels; SSIM needs 6 x 6"):
        Translation().measure(subject(small, nothing), [])


def test_the_judge_of_likeness_measures_pictures_batch_by_batch(judge):
    pixels, others = np.random.default_rng(0).integers(0, 256, (2, 51, 8, 8, 1), np.uint8)
    apart = np.concatenate([judge.distances(pixels[:50], others[:50]), judge.distances(pixels[50:], others[50:])])
    np.testing.assert_array_equal(judge.distances(pixels, others), apart)
    difference = judge.features(pixels) - judge.features(others)
    np.testing.assert_allclose(apart, (difference**2).sum(1), rtol=1e-4)


def test_the_judge_of_likeness_orders_what_people_would_order(judge):
    rng = np.random.default_rng(0)
    pixels = np.full((2, 64, 64, 3), 255, np.uint8)
    pixels[:, 16:48, 20:44] = (200, 60, 30)
    moved, noisy = np.roll(pixels, 2, 2), rng.integers(0, 256, pixels.shape, np.uint8)
    assert judge.distances(pixels, pixels).max() == 0
    assert 0 < judge.distances(pixels, moved).mean() < judge.distances(pixels, noisy).mean() <= 4
    index, distance = judge.nearest(moved, np.concatenate([noisy, pixels]))
    assert (index == 2).all()
    np.testing.assert_allclose(distance, judge.distances(moved, pixels), atol=1e-4)


def test_grey_is_compared_with_colour_as_a_picture_of_greys(judge):
    grey = np.full((2, 16, 16, 1), 100, np.uint8)
    assert likeness(grey, np.repeat(grey, 3, 3), judge).l1 == 0
    assert mean_l1(grey, grey + 51) == pytest.approx(0.2)


@pytest.mark.parametrize("n", [1, BATCH, 2 * BATCH + 3])
def test_ssim_in_batches_is_that_of_all_pictures_at_once(n, monkeypatch):
    pixels, others = np.random.default_rng(0).integers(0, 256, (2, n, 8, 8, 3), np.uint8)
    shown = []

    def counted(ours, theirs, **settings):
        shown.append(len(ours))
        return structural_similarity_index_measure(ours, theirs, **settings)

    monkeypatch.setattr(translation_module, "structural_similarity_index_measure", counted)
    ours, theirs = (torch.from_numpy(p).permute(0, 3, 1, 2).float() / 255 for p in (pixels, others))
    expected = float(structural_similarity_index_measure(ours, theirs, data_range=1.0))
    assert mean_ssim(pixels, others) == pytest.approx(expected, abs=1e-6)
    assert max(shown) <= BATCH
    assert sum(shown) == n


def test_a_page_gets_its_tables_between_the_marks_and_keeps_its_words(two_recipes, judge, tmp_path):
    page = tmp_path / "docs" / "translation.md"
    page.parent.mkdir()
    page.write_text(f"# Words\n\n{BEGIN}\nold\n{END}\n\nmore words\n")
    longer = two_recipes.model_copy(update={"method": "other"})
    for _ in range(2):
        compare([subject(two_recipes, negative, "good"), subject(longer, noise, "wild")], page)
    text = page.read_text()
    assert text.startswith("# Words\n")
    assert text.endswith("more words\n")
    assert "old" not in text
    assert text.count(f"| good | `method = {two_recipes.method}` | 0.0000 | 1.0000 | 0.0000 | - |") == 1
    assert "| identity | the input, handed back |" in text
    assert (page.parent / "images" / "good-compared.png").exists()
    with pytest.raises(EvaluationError, match="name of its own"):
        compare([subject(two_recipes, negative), subject(two_recipes, noise)], page)
