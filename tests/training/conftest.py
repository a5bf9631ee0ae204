"""A data set and a recipe so small that a training step takes milliseconds."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.evaluation.perceptual import PerceptualJudge, perceptual_judge
from training.recipe import Recipe, parse_recipe

TINY: dict[str, Any] = {
    "name": "tiny",
    "method": "adversarial",
    "seed": 3,
    "schedule": {"total_kimg": 0.24, "batch_size": 8, "report_kimg": 0.04, "preview_kimg": 0.08, "save_kimg": 0.08},
    "compute": {"device": "cpu"},
    "generator": {"architecture": "dcgan", "z_dim": 4, "embedding_dim": 4, "base_channels": 2},
    "discriminator": {"architecture": "dcgan", "base_channels": 2, "feature_dim": 8},
    "objective": {"name": "relativistic"},
    "penalties": [
        {"name": "r1", "weight": {"start": 0.2, "end": 0.02}, "every": 2},
        {"name": "r2", "weight": 0.1},
    ],
}


TRANSLATING: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "schedule": TINY["schedule"],
    "compute": {"device": "cpu"},
    "discriminator": {"architecture": "patch", "field": 16, "base_channels": 2},
    "objective": {"name": "relativistic"},
    "penalties": [{"name": "r1", "weight": 0.1, "every": 2}],
    "augment": {"policies": ["translation", "cutout"]},
    "jitter": ["mirror"],
}
PAIRED: dict[str, Any] = {
    **TRANSLATING,
    "method": "paired",
    "generator": {"architecture": "unet", "base_channels": 2, "halvings": 2, "z_dim": 3},
}
UNPAIRED: dict[str, Any] = {
    **TRANSLATING,
    "method": "unpaired",
    "generator": {"architecture": "resnet", "base_channels": 2, "blocks": 1},
    "tie": {"name": "cycle"},
    "pool_size": 5,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("GANERY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> PerceptualJudge:
    """The judge of likeness, which takes seconds to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANERY_CACHE", str(tmp_path_factory.mktemp("judge")))
        return perceptual_judge()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 8 x 8 grey pictures: bright above, bright on the left."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, bright in {"above": np.s_[:4], "left": np.s_[:, :4]}.items():
        (root / name).mkdir()
        for index in range(60):
            pixels = rng.integers(0, 80, (8, 8), np.uint8)
            pixels[bright] += 150
            Image.fromarray(pixels).save(root / name / f"{index:03d}.png")
    return root


@pytest.fixture
def tables(pictures: Path) -> dict[str, Any]:
    """The tables of a recipe, free to be changed."""
    data = {"name": "image-folder", "path": str(pictures), "size": 8, "channels": 1, "held_out": 0.2}
    return {**copy.deepcopy(TINY), "data": data}


@pytest.fixture
def recipe(tables: dict[str, Any]) -> Recipe:
    return parse_recipe(tables, "the test's recipe")


@pytest.fixture(scope="session")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders A and B of 16 x 16 pictures in colour: a square somewhere on white, and the same square inverted."""
    root = tmp_path_factory.mktemp("sides")
    rng = np.random.default_rng(0)
    for name in "AB":
        (root / name).mkdir()
    for index in range(60):
        pixels = np.full((16, 16, 3), 255, np.uint8)
        top, left = rng.integers(0, 10, 2)
        pixels[top : top + 6, left : left + 6] = rng.integers(0, 200, 3)
        Image.fromarray(pixels).save(root / "A" / f"{index:03d}.png")
        Image.fromarray(255 - pixels).save(root / "B" / f"{index:03d}.png")
    return root


@pytest.fixture
def paired_tables(sides: Path) -> dict[str, Any]:
    data = {"name": "pair-folders", "path": str(sides), "size": 16, "held_out": 0.2}
    return {**copy.deepcopy(PAIRED), "data": data}


@pytest.fixture
def unpaired_tables(sides: Path) -> dict[str, Any]:
    data = {"name": "two-folders", "a": str(sides / "A"), "b": str(sides / "B"), "size": 16, "held_out": 0.2}
    return {**copy.deepcopy(UNPAIRED), "data": data}


@pytest.fixture(params=["paired", "unpaired"])
def translating(request: pytest.FixtureRequest) -> Recipe:
    """A recipe of every method that translates."""
    return parse_recipe(request.getfixturevalue(f"{request.param}_tables"), "the test's recipe")
