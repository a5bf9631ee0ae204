import tomllib
from pathlib import Path

import pytest
import torch

from training.__main__ import RECIPES, build
from training.config import RecipeError
from training.datasets import Domains, Pairs, Pictures
from training.methods import METHODS, Progress
from training.objectives import OBJECTIVES
from training.penalties import PENALTIES
from training.recipe import parse_recipe, read_recipe

SHIPPED = sorted(RECIPES.glob("*.toml"))

GREY, COLOUR = (torch.zeros(8, channels, size, size, dtype=torch.uint8) for channels, size in ((1, 28), (3, 64)))
KEYS = tuple("abcdefgh")
STAND_INS = {
    Pictures: Pictures(GREY, torch.arange(8), tuple("abcdefghij")),
    Pairs: Pairs(COLOUR, COLOUR + 200, KEYS),
    Domains: Domains(COLOUR, COLOUR + 200, KEYS, KEYS),
}
"""Data of each kind that a method can learn from, in the size of the shipped recipes."""


def listed(registry):
    return ", ".join(sorted(registry))


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
        ({"method": "adversarail"}, f"unknown method 'adversarail'; available: {listed(METHODS)}"),
        ({"objective": {"name": "hing"}}, f"unknown objective 'hing'; available: {listed(OBJECTIVES)}"),
        ({"penalties": [{"name": "r0", "weight": 1}]}, f"unknown penalty 'r0'; available: {listed(PENALTIES)}"),
        ({"schedule": {"total_kimg": -1}}, "greater than 0"),
        ({"schedule": {"total_kimg": float("inf")}}, r"schedule\.total_kimg: .* finite"),
        (
            {"schedule": {"total_kimg": 0.0004, "batch_size": 8}},
            r"schedule: total_kimg = 0\.0004 is 0 images, less than one batch of 8; at least 0\.008",
        ),
        (
            {"generator_optimizer": {"learning_rate": True}},
            r"generator_optimizer\.learning_rate: is true; allowed: a number, or a table",
        ),
        ({"generator_optimizer": {"learning_rate": {"start": True, "end": 0}}}, r"learning_rate\.start: .* number"),
        ({"seed": "one"}, "seed"),
        ({"name": "../up"}, "name"),
        ({"limitations": "It blurs."}, "limitations: .*tuple"),
        ({"limitations": ["It blurs.", " "]}, r"limitations\.1"),
    ],
)
def test_a_faulty_recipe_is_refused_before_anything_is_trained(tables, change, complaint):
    with pytest.raises(RecipeError, match=f"(?s)cannot be trained.*{complaint}"):
        parse_recipe({**tables, **change}, "the recipe")


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("seed", 9, lambda recipe: recipe.seed),
        ("schedule.batch_size", 4, lambda recipe: recipe.schedule.batch_size),
        ("penalties.1.weight", 0.7, lambda recipe: recipe.components.penalties[1].weight.start),
        ("ema.halflife_kimg", 3.0, lambda recipe: recipe.components.ema.halflife_kimg),
    ],
)
def test_a_key_can_be_given_another_value(recipe, tmp_path, key, value, where):
    (tmp_path / "tiny.toml").write_text(recipe.to_toml())
    assert where(read_recipe(tmp_path / "tiny.toml", {key: value})) == value


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("schedule.batch", "schedule: unknown batch; allowed here: batch_size, preview_kimg, .*total_kimg$"),
        ("data.sizes", "data: unknown sizes; allowed here: .*name"),
        ("seed.of", "seed is 3 and no table"),
        ("penalties.5.weight", "a list of 2 tables"),
        ("penalties.weight", "say penalties.0.KEY"),
    ],
)
def test_a_key_that_is_none_cannot(recipe, tmp_path, key, complaint):
    (tmp_path / "tiny.toml").write_text(recipe.to_toml())
    with pytest.raises(RecipeError, match=complaint):
        read_recipe(tmp_path / "tiny.toml", {key: 1})


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(RecipeError, match="cannot read"):
        read_recipe(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("a = [")
    with pytest.raises(RecipeError, match="is not TOML"):
        read_recipe(tmp_path / "broken.toml")
    (tmp_path / "picture.toml").write_bytes(b"\xff\xd8")
    with pytest.raises(RecipeError, match="is not TOML"):
        read_recipe(tmp_path / "picture.toml")


def test_a_recipe_without_a_method_is_told_which_there_are(tables):
    del tables["method"]
    with pytest.raises(RecipeError, match=f"needs a `method`; available: {listed(METHODS)}"):
        parse_recipe(tables, "the recipe")


@pytest.mark.parametrize("fixture", ["tables", "paired_tables"])
def test_a_step_in_bf16_computes_otherwise_and_keeps_the_weights_in_fp32(fixture, request):
    tables, losses = request.getfixturevalue(fixture), {}
    for precision in ("fp32", "bf16"):
        recipe = parse_recipe({**tables, "compute": {"device": "cpu", "precision": precision}}, "the recipe")
        data = recipe.data.load("train")
        method = build(recipe, data)
        losses[precision] = method.step(lambda data=data: data.batch(torch.arange(8)), Progress(0, 1000, 8))
        weights = [parameter for network in method.networks.values() for parameter in network.parameters()]
        assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in weights)
    full, half = (scalars["loss/discriminator"].item() for scalars in losses.values())
    assert half == pytest.approx(full, rel=0.05)
    assert half != full


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_takes_a_step(path: Path, monkeypatch):
    recipe = read_recipe(path)
    data = STAND_INS[METHODS[recipe.method].Data]
    monkeypatch.setattr(type(recipe.data), "load", lambda *_: data)
    method = build(recipe, data)
    scalars = method.step(lambda: data.batch(torch.arange(8)), Progress(0, 1000, 8))
    assert all(value.isfinite() for value in scalars.values())
    assert recipe.name == path.stem
