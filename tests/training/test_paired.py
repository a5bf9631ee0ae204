import pytest
import torch

from training.__main__ import build
from training.architectures import PatchDiscriminator
from training.config import RecipeError
from training.methods import Progress
from training.methods.critic import Critic
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
    paired_tables |= {"adversarial_weight": 0, "mirror": False, "generator_optimizer": {"learning_rate": 1e-2}}
    recipe = parse_recipe(paired_tables, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    assert "discriminator" not in method.networks
    first = steps(method, recipe, 1)["loss/reconstruction"]
    last = steps(method, recipe, 60)
    assert last.keys() == {"loss/reconstruction"}
    assert last["loss/reconstruction"] < first / 2


def test_the_discriminator_judges_an_output_together_with_its_own_source(method, paired_tables, monkeypatch):
    recipe = parse_recipe({**paired_tables, "mirror": False}, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    source, target = recipe.data.load("train").batch(torch.arange(8))
    seen = []
    monkeypatch.setattr(method.critic, "generator_loss", lambda real, fake: (seen.append((real, fake)), fake.mean())[1])
    method.step(lambda: (source, target), Progress(0, 800, 8))
    ((real, fake),) = seen
    assert torch.equal(real, torch.cat([source, target], 1))
    assert torch.equal(fake[:, :3], source)
    assert not torch.equal(fake[:, 3:], target)


class Powers(PatchDiscriminator):
    """Layers that make x, x^2 and, as logits, x^3."""

    def activations(self, x):
        return [x, x**2, x**3]


def test_the_distance_of_features_is_in_units_of_the_real_ones(method):
    critic = Critic(Powers(), method.config, method.compute)
    real, fake = torch.full((2, 1, 4, 4), -2.0), torch.full((2, 1, 4, 4), 3.0)
    # |-2 - 3| / 2 and |4 - 9| / 4; the logits, whose matter is the objective, do not count.
    torch.testing.assert_close(critic.feature_distance(real, fake), torch.tensor((2.5 + 1.25) / 2))


def test_what_is_equal_has_equal_features_and_only_the_made_one_is_moved(method):
    real = torch.rand(4, 6, 16, 16, requires_grad=True)
    fake = real.detach().clone().requires_grad_()
    assert method.critic.feature_distance(real, fake) == 0
    with torch.no_grad():
        fake += 0.1
    distance = method.critic.feature_distance(real, fake)
    assert distance > 0
    distance.backward()
    assert fake.grad.abs().amax((1, 2, 3)).min() > 0
    assert real.grad is None
    assert all(parameter.grad is None for parameter in method.networks["discriminator"].parameters())


def test_matching_features_draws_the_generator_to_the_target(paired_tables):
    paired_tables |= {
        "reconstruction_weight": 0,
        "adversarial_weight": 1e-6,
        "feature_weight": 10,
        "mirror": False,
        "generator_optimizer": {"learning_rate": 1e-2},
        "discriminator_optimizer": {"learning_rate": 0},
    }
    recipe = parse_recipe(paired_tables, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    first = steps(method, recipe, 1)
    last = steps(method, recipe, 60)
    assert last["loss/features"] < first["loss/features"] / 2
    assert last["loss/reconstruction"] < first["loss/reconstruction"]


def test_without_a_weight_no_features_are_compared(method, paired_tables):
    assert "loss/features" not in steps(method, parse_recipe(paired_tables, "the recipe"), 1)


def test_features_of_no_discriminator_cannot_be_compared(paired_tables):
    paired_tables |= {"adversarial_weight": 0, "feature_weight": 2}
    with pytest.raises(RecipeError, match="feature_weight is 2 and adversarial_weight 0, so there is no discriminator"):
        parse_recipe(paired_tables, "the recipe")


def test_seeds_give_several_outputs_and_the_spread_is_reported(method):
    assert not torch.equal(method.translate(method.sources, 0), method.translate(method.sources, 1))
    assert method.diversity() > 0


def test_without_z_there_is_one_output_and_no_spread(paired_tables):
    paired_tables["generator"]["z_dim"] = 0
    recipe = parse_recipe(paired_tables, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    assert method.diversity() is None
    assert torch.equal(method.translate(method.sources, 0), method.translate(method.sources, 1))


def test_a_policy_that_would_mix_source_and_target_is_refused(paired_tables):
    paired_tables["augment"] = {"policies": ["colour"]}
    with pytest.raises(RecipeError, match="possible here: cutout, translation"):
        parse_recipe(paired_tables, "the recipe")


def test_data_of_another_kind_are_refused(paired_tables, unpaired_tables):
    recipe = parse_recipe({**paired_tables, "data": unpaired_tables["data"]}, "the recipe")
    with pytest.raises(RecipeError, match=r"'paired' learns from pairs; the data set yields .* without partners"):
        build(recipe, recipe.data.load("train"))
