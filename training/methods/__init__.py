"""Methods: which networks exist and what one step is. The loop runs any of them and names none."""

from training.methods.adversarial import Adversarial
from training.methods.base import AbstractMethod, Draw, Progress

METHODS: dict[str, type[AbstractMethod]] = {
    "adversarial": Adversarial,
}

__all__ = ["METHODS", "AbstractMethod", "Draw", "Progress"]
