from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import ValidationError

from training.config import Component, RecipeError, Section, choice, lookup


class Shape(Component):
    pass


@dataclass(frozen=True)
class Circle(Shape):
    radius: float = 1.0


SHAPES: dict[str, type[Shape]] = {"circle": Circle}


class Drawing(Section):
    shape: Annotated[Shape, choice(SHAPES, "shape")]


def test_a_table_becomes_the_component_it_names():
    assert Drawing.model_validate({"shape": {"name": "circle", "radius": 2}}).shape == Circle(2.0)


def test_writing_it_down_gives_every_default_and_reads_back():
    drawing = Drawing.model_validate({"shape": {"name": "circle"}})
    assert drawing.model_dump() == {"shape": {"name": "circle", "radius": 1.0}}
    assert Drawing.model_validate(drawing.model_dump()) == drawing


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"name": "square"}, "unknown shape 'square'; available: circle"),
        ({"radius": 1}, "needs a `name`; available: circle"),
        ({"name": "circle", "radios": 1}, "unknown radios; allowed here: name, radius"),
        ({"name": "circle", "radius": "wide"}, "valid number"),
        ("circle", "needs a `name`"),
    ],
)
def test_what_does_not_fit_is_named(table, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Drawing.model_validate({"shape": table})


def test_a_failed_lookup_lists_the_choices():
    with pytest.raises(RecipeError, match="unknown shape 'cone'; available: circle"):
        lookup(SHAPES, "cone", "shape")
