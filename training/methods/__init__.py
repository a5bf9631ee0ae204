"""Methods: which networks exist and what one step is. The loop runs any of them and names none."""

from training.methods.adversarial import Adversarial
from training.methods.base import AbstractMethod, Draw, Progress
from training.methods.paired import Paired
from training.methods.unpaired import Unpaired

METHODS: dict[str, type[AbstractMethod]] = {
    "adversarial": Adversarial,
    "paired": Paired,
    "unpaired": Unpaired,
}

__all__ = ["METHODS", "AbstractMethod", "Draw", "Progress"]
