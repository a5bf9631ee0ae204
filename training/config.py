"""Building blocks of strict recipes: sections that refuse unknown keys, and choices out of a registry."""

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, GetPydanticSchema, TypeAdapter, model_validator
from pydantic_core import core_schema

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that cannot be trained as it stands; the message says where and what is allowed."""


class Section(BaseModel):
    """A table of a recipe: frozen, unknown keys refused. A section belongs to one component."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, table: Any) -> Any:
        if isinstance(table, Mapping):
            expect_keys(table, cls.model_fields)
        return table


class Component:
    """Base of what a recipe can choose by name: a frozen dataclass whose fields are the table's other keys."""

    __pydantic_config__ = ConfigDict(extra="forbid")


def expect_keys(table: Iterable[str], allowed: Iterable[str]) -> None:
    """Check the keys of a table.

    Raises:
        RecipeError: if one is unknown; the message lists the allowed ones.
    """
    if unknown := sorted(set(table) - set(allowed)):
        raise RecipeError(f"unknown {', '.join(unknown)}; allowed here: {', '.join(sorted(allowed))}")


def lookup(registry: Mapping[str, T], name: str, kind: str) -> T:
    """The entry of a registry.

    Raises:
        RecipeError: if there is none; the message lists the choices.
    """
    if name not in registry:
        raise RecipeError(f"unknown {kind} {name!r}; available: {', '.join(sorted(registry))}")
    return registry[name]


def key_of(registry: Mapping[str, Any], kind: str) -> AfterValidator:
    """Annotation for a section's field: a name that is in the registry.

    Use as `name: Annotated[str, key_of(PENALTIES, "penalty")]`.
    """

    def known(name: str) -> str:
        lookup(registry, name, kind)
        return name

    return AfterValidator(known)


def choice(registry: Mapping[str, type[Component]], kind: str, key: str = "name") -> GetPydanticSchema:
    """Annotation for a section's field: a table whose `key` names an entry of the registry.

    Use as `objective: Annotated[AbstractObjective, choice(OBJECTIVES, "objective")]`. Validation builds the component
    from the table's other keys; serialisation writes the table again with every default.
    """

    def validate(table: Any) -> Any:
        if isinstance(table, Component):
            return table
        if not isinstance(table, Mapping) or not isinstance(table.get(key), str):
            raise RecipeError(f"needs a `{key}`; available: {', '.join(sorted(registry))}")
        options = {name: value for name, value in table.items() if name != key}
        component = lookup(registry, table[key], kind)
        expect_keys(table, [key, *signature(component).parameters])
        return TypeAdapter(component).validate_python(options)

    def serialise(component: Any) -> dict[str, Any]:
        name = next(name for name, entry in registry.items() if type(component) is entry)
        return {key: name, **TypeAdapter(type(component)).dump_python(component, mode="json")}

    return GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(serialise)
        )
    )
