"""Says while it happens that training goes wrong, and what to try."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Symptom:
    """A failure mode that can be seen in reported numbers."""

    scalar: str
    """The number that shows it."""
    is_ill: Callable[[float], bool]
    advice: str
    """What it means and what to try; `{value}` is filled in."""


OVERPOWERED = Symptom(
    scalar="logits/real_above_fake",
    is_ill=lambda share: share > 0.98,
    advice="D puts {value:.1%} of real pictures above their fakes, so G's gradient fades. Try: a larger r1/r2 "
    "weight, a lower discriminator learning rate, a smaller discriminator, or [augment] if the data are few.",
)

PATIENCE = 3
"""Reports in a row that must show a symptom: one bad report is noise, and an untrained generator always looks ill."""


class Health:
    """Watches the reports of one run; each symptom is told when it begins, not every time."""

    def __init__(self, symptoms: Mapping[str, Symptom]) -> None:
        self._symptoms = symptoms
        self._streaks = dict.fromkeys(symptoms, 0)

    def check(self, scalars: Mapping[str, float]) -> list[str]:
        """The warnings that this report gives rise to."""
        warnings = []
        for name, symptom in self._symptoms.items():
            if symptom.scalar not in scalars:
                continue
            value = scalars[symptom.scalar]
            self._streaks[name] = self._streaks[name] + 1 if symptom.is_ill(value) else 0
            if self._streaks[name] == PATIENCE:
                warnings.append(f"{name}: {symptom.advice.format(value=value)}")
        return warnings


def non_finite(scalars: Mapping[str, float]) -> list[str]:
    """Names of the scalars that are NaN or infinite."""
    return sorted(name for name, value in scalars.items() if not math.isfinite(value))
