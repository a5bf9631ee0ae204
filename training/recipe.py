"""A recipe: everything about a run that is decided before its first step."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

import tomli_w
from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from service.manifest import MAX_LIMITATIONS, Limitation
from training.compute import Compute
from training.config import RecipeError, Section, choice, expect_keys, lookup
from training.datasets import DATASETS, AbstractDataset
from training.methods import METHODS


class Schedule(Section):
    """The `[schedule]` table: how long, in which steps, and what is seen of it."""

    total_kimg: float = Field(gt=0, allow_inf_nan=False)
    """Thousands of images to train for, counted as generator steps times `batch_size`; `--hours` replaces it."""
    batch_size: int = Field(default=64, ge=2)
    report_kimg: float = Field(default=5, gt=0)
    """Numbers go to the bar, `metrics.jsonl` and TensorBoard this often."""
    preview_kimg: float = Field(default=20, gt=0)
    """A grid of samples is drawn this often."""
    save_kimg: float = Field(default=20, gt=0)
    """All of the state is saved this often: what a kill can cost."""

    @property
    def total_nimg(self) -> int:
        return round(self.total_kimg * 1000)

    @model_validator(mode="after")
    def _takes_a_step(self) -> Self:
        if self.total_nimg < self.batch_size:
            raise ValueError(
                f"total_kimg = {self.total_kimg:g} is {self.total_nimg} images, less than one batch of "
                f"{self.batch_size}; at least {self.batch_size / 1000:g}"
            )
        return self

    def expect_items(self, count: int) -> None:
        """Check that data of `count` items fill a batch.

        Raises:
            RecipeError: if they do not: a step would see less than it is counted as.
        """
        if count < self.batch_size:
            raise RecipeError(
                f"{count} training items cannot fill batches of {self.batch_size}; schedule.batch_size: at most {count}"
            )


class Recipe(Section):
    """A resolved recipe. The tables that are not named here belong to the method."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Of the run and of the bundle."""
    licence: str = "Apache-2.0"
    """Of the weights that come out."""
    limitations: tuple[Limitation, ...] = Field(default=(), max_length=MAX_LIMITATIONS)
    """Where what comes out fails: sentences for its card, which no step depends on."""
    method: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    data: Annotated[AbstractDataset, choice(DATASETS, "data set")]
    schedule: Schedule
    compute: Compute = Compute()
    components: SerializeAsAny[Section]
    """The method's tables."""

    @model_validator(mode="before")
    @classmethod
    def _hand_over_the_methods_tables(cls, tables: Any) -> Any:
        if not isinstance(tables, dict) or "components" in tables:
            return tables
        if "method" not in tables:
            raise RecipeError(f"needs a `method`; available: {', '.join(sorted(METHODS))}")
        own = {key: value for key, value in tables.items() if key in cls.model_fields}
        rest = {key: value for key, value in tables.items() if key not in cls.model_fields}
        config = lookup(METHODS, str(tables["method"]), "method").Config
        expect_keys(tables, (cls.model_fields.keys() | config.model_fields.keys()) - {"components"})
        return {**own, "components": config.model_validate(rest)}

    def resolved(self) -> dict[str, Any]:
        """Every table with every default, as the recipe's file would hold them."""
        tables = self.model_dump(mode="json", exclude_none=True)
        components = tables.pop("components")
        return {**tables, **components}

    def to_toml(self) -> str:
        """The resolved recipe as text; reading it gives this recipe again."""
        return tomli_w.dumps(self.resolved())

    def lasting(self, total_kimg: float) -> "Recipe":
        """The same recipe with another length."""
        return self.model_copy(update={"schedule": self.schedule.model_copy(update={"total_kimg": total_kimg})})


def parse_recipe(tables: dict[str, Any], origin: str) -> Recipe:
    """A recipe from its tables; `origin` names them in errors.

    Raises:
        RecipeError: if it breaks the rules; the message says where and what is allowed.
    """
    try:
        return Recipe.model_validate(tables)
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False)
        )
        raise RecipeError(f"{origin} cannot be trained:\n{faults}") from error


def changed(tables: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The tables with another value at a dotted key, `schedule.batch_size`; a number counts through a list of tables.

    Raises:
        RecipeError: if the way to the key leads through what is no table.
    """
    first, _, rest = key.partition(".")
    if not rest:
        return {**tables, first: value}
    inner = tables.get(first, {})
    if isinstance(inner, list):
        number, _, further = rest.partition(".")
        if not number.isdecimal() or int(number) >= len(inner) or not further:
            raise RecipeError(f"{first} is a list of {len(inner)} tables; say {first}.0.KEY, and so on")
        return {**tables, first: [
            changed(table, further, value) if index == int(number) else table for index, table in enumerate(inner)
        ]}  # fmt: skip
    if not isinstance(inner, dict):
        raise RecipeError(f"{first} is {inner!r} and no table, so there is no {key} to set")
    return {**tables, first: changed(inner, rest, value)}


def read_recipe(path: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """A recipe from its TOML file.

    Args:
        changes: values that replace those of the file, by dotted key.

    Raises:
        RecipeError: if it cannot be read or breaks the rules.
    """
    try:
        tables = tomllib.loads(path.read_text())
        for key, value in changes.items():
            tables = changed(tables, key, value)
        return parse_recipe(
            tables, " with ".join([str(path), *(f"{key} = {value!r}" for key, value in changes.items())])
        )
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
