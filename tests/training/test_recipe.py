import tomllib
from pathlib import Path

import pytest
import torch

from training.__main__ import RECIPES, build
from training.config import RecipeError
from training.datasets import Pictures
from training.methods import Progress
from training.recipe import parse_recipe, read_recipe

SHIPPED = sorted(RECIPES.glob("*.toml"))


def test_a_resolved_recipe_reads_back_as_itself(recipe):
    assert parse_recipe(tomllib.loads(recipe.to_toml()), "itself") == recipe


def test_every_default_is_written_out(recipe):
    resolved = recipe.resolved()
    assert resolved["generator"]["max_channels"] == 256
    assert resolved["generator_optimizer"]["beta1"] == 0.0
    assert "augment" not in resolved  # off is an absent table


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"objectiv": {"name": "hinge"}}, "unknown objectiv; allowed here: .*objective"),
        ({"method": "adversarail"}, "unknown method 'adversarail'; available: adversarial"),
        ({"objective": {"name": "hing"}}, "unknown objective 'hing'; available: hinge, non_saturating, relativistic"),
        ({"penalties": [{"name": "r3", "weight": 1}]}, "unknown penalty 'r3'; available: r1, r2"),
        ({"schedule": {"total_kimg": -1}}, "greater than 0"),
        ({"seed": "one"}, "seed"),
        ({"name": "../up"}, "name"),
    ],
)
def test_a_faulty_recipe_is_refused_before_anything_is_trained(tables, change, complaint):
    with pytest.raises(RecipeError, match=f"(?s)cannot be trained.*{complaint}"):
        parse_recipe({**tables, **change}, "the recipe")


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(RecipeError, match="cannot read"):
        read_recipe(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("a = [")
    with pytest.raises(RecipeError, match="is not TOML"):
        read_recipe(tmp_path / "broken.toml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_takes_a_step(path: Path):
    recipe = read_recipe(path)
    data = Pictures(torch.zeros(8, 1, 28, 28, dtype=torch.uint8), torch.arange(8) % 10, tuple("abcdefghij"))
    method = build(recipe, data)
    scalars = method.step(lambda: data.batch(torch.arange(8)), Progress(0, 1000, 8))
    assert all(value.isfinite() for value in scalars.values())
    assert recipe.name == path.stem
