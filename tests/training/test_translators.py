from inspect import signature

import pytest
import torch

from training.architectures import PATCH_DISCRIMINATORS, TRANSLATORS
from training.architectures.patch import HALVINGS, PatchConfig
from training.architectures.resnet import ResNetConfig
from training.architectures.unet import UNetConfig
from training.config import RecipeError

SMALL = {"base_channels": 2, "blocks": 2, "halvings": 3}
"""Settings of translators that have them."""


def config(name, **settings):
    """A small one."""
    known = signature(TRANSLATORS[name]).parameters
    return TRANSLATORS[name](**{key: value for key, value in SMALL.items() if key in known}, **settings)


def that_have(setting):
    return [name for name, config in TRANSLATORS.items() if setting in signature(config).parameters]


def small(name):
    """A translator whose every weight matters, in double precision, so that no influence drowns in rounding."""
    translator = config(name).build((1, 32, 32), (3, 32, 32)).double()
    for parameter in translator.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return translator


def reach(network, size, step, channels=1):
    """How far from a pixel the farthest output lies that changes with it, over the pixels of one cell of the coarsest
    map.
    """
    x = torch.zeros(1, channels, size, size, dtype=torch.float64)
    before, farthest = network(x), 0
    middle = size // 2 // step * step
    for offset in range(step):
        there = middle + offset
        changed = x.clone()
        changed[0, 0, there, there] = 1
        moved = (network(changed) - before).abs().amax((0, 1)) > 0
        farthest = max(farthest, int((moved.nonzero() - there).abs().max()))
    return farthest


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in TRANSLATORS), *((name, {"z_dim": 5}) for name in that_have("z_dim"))],
)
def test_a_translator_keeps_the_size_whatever_it_is(name, settings):
    translator = config(name, **settings).build((1, 32, 32), (3, 32, 32))
    z = torch.randn(2, translator.z_dim) if translator.z_dim else None
    for height, width in [(1, 1), (3, 2)]:
        x = torch.rand(2, 1, height * translator.multiple_of, width * translator.multiple_of)
        items = translator(x, z)
        assert items.shape == (2, 3, *x.shape[2:])


@pytest.mark.parametrize("name", TRANSLATORS)
def test_the_halo_is_how_far_a_pixel_has_influence(name):
    translator = small(name)
    size = 4 * translator.halo // translator.multiple_of * translator.multiple_of
    farthest = reach(lambda x: translator(x, None), size, translator.multiple_of)
    # The halo is counted from the image back and this from the source on, where the cells lie otherwise.
    assert translator.halo - translator.multiple_of < farthest <= translator.halo


@pytest.mark.parametrize("name", TRANSLATORS)
def test_tiles_that_overlap_by_the_halo_show_no_seam(name):
    translator = small(name)
    step = translator.multiple_of
    margin = -(-translator.halo // step) * step
    x = torch.rand(1, 1, 2 * margin + 4 * step, 3 * margin, dtype=torch.float64)
    whole = translator(x, None)
    middle = slice(margin, x.shape[3] - margin)
    left = translator(x[..., : middle.stop + margin], None)[..., : middle.stop]
    right = translator(x[..., middle.stop - margin :], None)[..., margin:]
    torch.testing.assert_close(torch.cat([left, right], 3), whole)


@pytest.mark.parametrize("name", that_have("z_dim"))
def test_z_changes_the_output(name):
    translator = config(name, z_dim=4).build((3, 32, 32), (3, 32, 32))
    x = torch.rand(1, 3, 32, 32)
    assert not torch.equal(translator(x, torch.zeros(1, 4)), translator(x, torch.ones(1, 4)))


@pytest.mark.parametrize("name", that_have("residual"))
def test_a_residual_translator_begins_as_the_identity_and_learns_from_its_first_steps(name):
    settings = {"z_dim": 4} if name in that_have("z_dim") else {}
    translator = config(name, residual=True, **settings).build((3, 32, 32), (3, 32, 32))
    x, target = torch.rand(2, 2, 3, 32, 32)
    z = torch.randn(2, 4) if settings else None
    assert torch.equal(translator(x, z), x)
    optimizer = torch.optim.SGD(translator.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (translator(x, z) - target).abs().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in translator.parameters())


@pytest.mark.parametrize("name", that_have("residual"))
def test_a_residual_translator_has_the_same_halo(name):
    translator = config(name, residual=True).build((1, 32, 32), (1, 32, 32)).double()
    for parameter in translator.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    size = 4 * translator.halo // translator.multiple_of * translator.multiple_of
    assert reach(lambda x: translator(x, None), size, translator.multiple_of) <= translator.halo


@pytest.mark.parametrize("field", HALVINGS)
def test_a_patch_has_the_stated_field(field):
    patch = PatchConfig(field=field, base_channels=2).build((1, 70, 70)).double()
    size = 5 * field
    x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    logits = patch(x)
    middle = logits.shape[2] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    seen = gradient[0, 0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [field, field]


@pytest.mark.parametrize("name", PATCH_DISCRIMINATORS)
def test_samples_are_judged_alone(name):
    patch = PATCH_DISCRIMINATORS[name]().build((3, 64, 64))
    x = torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(patch(x)[:1], patch(x[:1]))


@pytest.mark.parametrize(
    ("config", "shapes", "complaint"),
    [
        (UNetConfig(halvings=4), [(3, 24, 24), (3, 24, 24)], "multiples of 16, not 24 x 24"),
        (ResNetConfig(), [(3, 30, 32), (3, 30, 32)], "multiples of 4, not 30 x 32"),
        (ResNetConfig(), [(3, 32, 32), (3, 64, 64)], "sources are 32 x 32 and targets 64 x 64"),
        (ResNetConfig(residual=True), [(1, 32, 32), (3, 32, 32)], r"source has 1 channel\(s\) and the target 3"),
        (UNetConfig(), [(1, 16000), (1, 16000)], r"makes pictures \[C, H, W\]"),
        (PatchConfig(field=40), [(3, 64, 64)], "is 40; possible: 16, 34, 70"),
        (PatchConfig(field=70), [(3, 64, 64)], "only 64 x 64; fitting: 16, 34"),
    ],
)
def test_shapes_that_do_not_suit_are_refused(config, shapes, complaint):
    with pytest.raises(RecipeError, match=complaint):
        config.build(*shapes)


def test_framing_is_refused_for_any_size_and_where_nothing_is_drawn():
    with pytest.raises(RecipeError, match='sizes to "fixed"'):
        ResNetConfig(framing=True)
    translator = ResNetConfig(framing=True, sizes="fixed").build((3, 32, 32), (3, 32, 32))
    white = torch.ones(2, 3, 32, 32)
    with pytest.raises(RecipeError, match="nothing but white"):
        translator.adapt(-white, white)
