"""Numbers that change while training runs."""

import math
from typing import Any

from pydantic import Field, model_validator

from training.config import Section


class Anneal(Section):
    """From `start` to `end` along half a cosine, neither below 0; in a recipe a plain number stays what it is.

    Reference: Loshchilov & Hutter, "SGDR", 2016, arXiv:1608.03983, eq. 5.
    """

    start: float = Field(ge=0, allow_inf_nan=False, strict=True)
    end: float = Field(ge=0, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _accept_a_constant(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"is {str(value).lower()}; allowed: a number, or a table of start and end")
        return {"start": value, "end": value} if isinstance(value, int | float) else value

    def at(self, progress: float) -> float:
        """The value at `progress`: 0 is the beginning of the schedule, 1 its end."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
