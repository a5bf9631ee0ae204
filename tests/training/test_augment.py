import pytest
import torch
from pydantic import ValidationError

from training.augment import JITTERS, POLICIES, Augment, cutout, jitter, translation

IMAGES = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.mark.parametrize("name", POLICIES)
def test_policy_keeps_the_shape_and_lets_gradients_through(name):
    images = IMAGES.clone().requires_grad_()
    changed = POLICIES[name](images)
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    (gradient,) = torch.autograd.grad(changed.sum(), images)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_translation_shifts_by_at_most_an_eighth():
    spot = torch.zeros(64, 1, 32, 32)
    spot[:, :, 16, 16] = 1
    _, _, rows, columns = torch.nonzero(translation(spot), as_tuple=True)
    assert len(rows) == 64
    assert (rows - 16).abs().max() == 4
    assert (columns - 16).abs().max() == 4


def test_cutout_leaves_at_least_three_quarters():
    share = (cutout(IMAGES.repeat(8, 1, 1, 1)) == 0).float().mean((1, 2, 3))
    assert (share > 0).all()
    assert share.max() == 0.25  # some square lies whole within its image


def test_probability_is_the_share_of_changed_images():
    torch.manual_seed(0)
    images = IMAGES[:1].expand(2000, -1, -1, -1)
    changed = Augment(policies=("cutout",), probability=0.3)(images)
    share = (changed != images).flatten(1).any(1).float().mean()
    assert share == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("policy", ["cutout", "translation"])
def test_what_belongs_together_is_augmented_alike(policy):
    torch.manual_seed(0)
    items = torch.rand(16, 3, 32, 32) + 1
    changed, beside = Augment(policies=(policy,), probability=0.5).alike(items, 2 * items)
    assert torch.equal(2 * changed, beside)
    assert not torch.equal(changed, items)


def test_an_unknown_policy_is_refused_with_the_choices():
    choices = ", ".join(sorted(POLICIES))
    with pytest.raises(ValidationError, match=f"unknown augmentation policy 'rotation'; available: {choices}"):
        Augment(policies=("rotation",))


@pytest.mark.parametrize("name", JITTERS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 100)])
def test_a_jitter_changes_what_belongs_together_in_the_same_way(name, shape):
    torch.manual_seed(0)
    items = torch.rand(16, *shape)
    changed, beside = jitter((name,), items, items + 1)
    assert changed.shape == items.shape
    assert torch.equal(changed + 1, beside)
    assert not torch.equal(changed, items)


def test_without_jitters_nothing_is_changed():
    (unchanged,) = jitter((), IMAGES)
    assert unchanged is IMAGES


def test_what_is_shifted_in_repeats_the_border():
    torch.manual_seed(0)
    (shifted,) = jitter(("shift",), torch.arange(32.0).repeat(64, 1, 1))
    assert shifted.diff(dim=-1).unique().tolist() == [0, 1]
    starts = shifted[:, 0, 0]
    assert starts.max() == 4
    assert shifted[:, 0, -1].min() == 27


def test_swapped_channels_are_the_same_channels():
    torch.manual_seed(0)
    (swapped,) = jitter(("channels",), IMAGES)
    assert torch.equal(swapped.sort(1).values, IMAGES.sort(1).values)
