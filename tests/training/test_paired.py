from dataclasses import replace

import pytest
import torch

from training.__main__ import build
from training.augment import JITTERS
from training.config import RecipeError
from training.methods import Progress
from training.recipe import parse_recipe


@pytest.fixture
def method(paired_tables):
    recipe = parse_recipe(paired_tables, "the recipe")
    return build(recipe, recipe.data.load("train"))


def steps(method, recipe, count):
    data = recipe.data.load("train")
    scalars = {}
    for index in range(count):
        indices = torch.randint(len(data), (8,))
        scalars = method.step(lambda indices=indices: data.batch(indices), Progress(index * 8, count * 8, 8))
    return scalars


def test_by_the_distance_alone_there_is_no_discriminator_and_the_distance_falls(paired_tables):
    paired_tables |= {"adversarial_weight": 0, "jitter": [], "generator_optimizer": {"learning_rate": 1e-2}}
    recipe = parse_recipe(paired_tables, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    assert "discriminator" not in method.networks
    first = steps(method, recipe, 1)["loss/l1"]
    last = steps(method, recipe, 60)
    assert last.keys() == {"loss/l1"}
    assert last["loss/l1"] < first / 2


def test_the_discriminator_judges_an_output_together_with_its_own_source(method, paired_tables, monkeypatch):
    recipe = parse_recipe({**paired_tables, "jitter": []}, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    source, target = recipe.data.load("train").batch(torch.arange(8))
    seen = []
    monkeypatch.setattr(method.critic, "generator_loss", lambda real, fake: (seen.append((real, fake)), fake.mean())[1])
    method.step(lambda: (source, target), Progress(0, 800, 8))
    ((real, fake),) = seen
    assert torch.equal(real, torch.cat([source, target], 1))
    assert torch.equal(fake[:, :3], source)
    assert not torch.equal(fake[:, 3:], target)


def test_the_discriminator_compares_the_same_patch_of_what_is_real_and_made(paired_tables, monkeypatch):
    recipe = parse_recipe({**paired_tables, "jitter": [], "penalties": []}, "the recipe")
    assert recipe.components.augment.policies == ("translation", "cutout")
    method = build(recipe, recipe.data.load("train"))
    seen = []
    judge = method.critic.discriminator.forward
    monkeypatch.setattr(
        method.critic.discriminator, "forward", lambda items, y: (seen.append(items.detach()), judge(items, y))[1]
    )
    steps(method, recipe, 1)
    both, fake, real = seen  # D's step in one pass; G's in two
    for real_pair, fake_pair in (both.chunk(2), (real, fake)):
        assert torch.equal(real_pair[:, :3], fake_pair[:, :3])  # the source is shown beside each of the two
        assert torch.equal(real_pair == 0, fake_pair == 0)


def test_seeds_give_several_outputs_and_the_spread_is_reported(method):
    assert not torch.equal(method.translate(method.sources, 0), method.translate(method.sources, 1))
    assert method.diversity() > 0


def test_without_z_there_is_one_output_and_no_spread(paired_tables):
    paired_tables["generator"]["z_dim"] = 0
    recipe = parse_recipe(paired_tables, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    assert method.diversity() is None
    assert torch.equal(method.translate(method.sources, 0), method.translate(method.sources, 1))


def test_channels_that_are_not_the_same_cannot_be_swapped(paired_tables):
    recipe = parse_recipe({**paired_tables, "jitter": ["channels"]}, "the recipe")
    data = recipe.data.load("train")
    grey = replace(data, sources=data.sources[:, :1])
    with pytest.raises(RecipeError, match="the source has 1 and the target 3; leave it out"):
        build(recipe, grey)


def test_an_unknown_jitter_is_refused_with_the_choices(paired_tables):
    with pytest.raises(RecipeError, match=f"unknown jitter 'spin'; available: {', '.join(sorted(JITTERS))}"):
        parse_recipe({**paired_tables, "jitter": ["spin"]}, "the recipe")


def test_a_policy_that_would_mix_source_and_target_is_refused(paired_tables):
    paired_tables["augment"] = {"policies": ["colour"]}
    with pytest.raises(RecipeError, match="possible here: cutout, translation"):
        parse_recipe(paired_tables, "the recipe")


def test_data_of_another_kind_are_refused(paired_tables, unpaired_tables):
    recipe = parse_recipe({**paired_tables, "data": unpaired_tables["data"]}, "the recipe")
    with pytest.raises(RecipeError, match=r"'paired' learns from pairs; the data set yields two domains of"):
        build(recipe, recipe.data.load("train"))
