"""The README names everything that can be chosen or called; what is added without a word there fails here."""

import re
from pathlib import Path

import pytest

from service.animations import ANIMATIONS
from service.archives import ARCHIVES
from service.errors import GaneryError, InvalidBundle
from service.formats import FORMATS
from service.manifest import Manifest
from service.routes import ROUTES
from service.settings import Settings
from service.telemetry import Metrics
from training.__main__ import RECIPES, REGISTRIES
from training.evaluation import table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted(route.path for route in ROUTES if route.path != "/web"))
def test_routes(path):
    assert re.search(rf"\| `(GET|POST) {re.escape(path)}` \|", README)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_settings(field):
    assert f"| `SERVICE_{field.upper()}` |" in README


@pytest.mark.parametrize("family", list(Metrics().registry.collect()), ids=lambda family: family.name)
def test_the_operations_page_explains_each_metric(family):
    name = family.name + ("_total" if family.type == "counter" else "")
    assert f"| `{name}` |" in (ROOT / "docs/operations.md").read_text()


def problems(kind=GaneryError):
    yield kind
    for derived in kind.__subclasses__():
        if derived.__module__ == "service.errors":
            yield from problems(derived)


ANSWERED = [problem for problem in problems() if problem is not InvalidBundle]


@pytest.mark.parametrize("problem", ANSWERED, ids=lambda problem: problem.__name__)
def test_problems(problem):
    kind = GaneryError.kind.fget(problem.__new__(problem))
    assert f"| {problem.status.value} | `{kind}` |" in (ROOT / "docs/api.md").read_text()


@pytest.mark.parametrize("name", sorted({*FORMATS, *ARCHIVES, *ANIMATIONS}))
def test_formats(name):
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", sorted({name for registry in REGISTRIES.values() for name in registry}))
def test_choices(name):
    assert f"`{name}`" in README


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes(path):
    assert f"`{path.stem}`" in README


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/manifest.json")), ids=lambda path: path.parent.name)
def test_models(path):
    assert f"models/{path.parent.name}" in README


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_shipped_numbers_are_those_of_the_bundle():
    """Each row of the README's table is the manifest's number."""
    metrics = Manifest.read(ROOT / "models" / "fashion").metrics
    for row in table(metrics).splitlines():
        assert row in README
