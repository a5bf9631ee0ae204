"""Objectives: pairs of losses over logits, each a choice and none a fork of the loop."""

from training.objectives.base import AbstractObjective
from training.objectives.hinge import Hinge
from training.objectives.non_saturating import NonSaturating
from training.objectives.relativistic import Relativistic

OBJECTIVES: dict[str, type[AbstractObjective]] = {
    "hinge": Hinge,
    "non_saturating": NonSaturating,
    "relativistic": Relativistic,
}

__all__ = ["OBJECTIVES", "AbstractObjective"]
