import math

import pytest

from training.health import PATIENCE, Health, non_finite
from training.methods.adversarial import SYMPTOMS

ILL = {"logits/real_above_fake": 0.999, "samples/diversity": 0.01}
WELL = {"logits/real_above_fake": 0.8, "samples/diversity": 0.9}


def test_a_lasting_symptom_is_told_once_with_what_to_try():
    health = Health(SYMPTOMS)
    told = [warning for _ in range(2 * PATIENCE) for warning in health.check(ILL)]
    assert len(told) == len(SYMPTOMS)
    assert all("Try:" in warning for warning in told)
    assert any("99.9%" in warning for warning in told)


def test_one_bad_report_is_no_symptom():
    health = Health(SYMPTOMS)
    told = [warning for _ in range(5) for scalars in (ILL, WELL) for warning in health.check(scalars)]
    assert told == []


def test_a_symptom_that_comes_back_is_told_again():
    health = Health(SYMPTOMS)
    told = [warning for scalars in [ILL] * PATIENCE + [WELL] + [ILL] * PATIENCE for warning in health.check(scalars)]
    assert len(told) == 2 * len(SYMPTOMS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_named(bad):
    assert non_finite({"loss/generator": bad, "loss/discriminator": 0.5}) == ["loss/generator"]
