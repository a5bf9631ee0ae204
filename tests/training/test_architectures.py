import pytest
import torch

from training.architectures import DISCRIMINATORS, GENERATORS, PictureShape
from training.architectures.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig
from training.config import RecipeError

SHAPES = [PictureShape(28, 1, 10), PictureShape(32, 3, 0), PictureShape(64, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", GENERATORS)
def test_generator_gives_images_of_the_datas_shape(name, shape):
    generator = GENERATORS[name]().build(shape)
    y = torch.zeros(2, dtype=torch.int64) if shape.num_classes else None
    images = generator(torch.randn(2, generator.z_dim), y)
    assert images.shape == (2, shape.channels, shape.size, shape.size)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_logit_is_the_sum_of_two_scores(name, shape):
    discriminator = DISCRIMINATORS[name]().build(shape)
    images = torch.randn(3, shape.channels, shape.size, shape.size)
    y = torch.zeros(3, dtype=torch.int64) if shape.num_classes else None
    realness, match = discriminator.scores(images, y)
    assert realness.shape == match.shape == (3,)
    torch.testing.assert_close(discriminator(images, y), realness + match)


def test_only_the_match_depends_on_the_class():
    discriminator = DCGANDiscriminatorConfig().build(PictureShape(28, 1, 10))
    images = torch.randn(1, 1, 28, 28)
    one, other = (discriminator.scores(images, torch.tensor([label])) for label in (0, 1))
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_the_class_changes_the_picture():
    generator = DCGANGeneratorConfig().build(PictureShape(28, 1, 10))
    z = torch.randn(1, generator.z_dim)
    assert not torch.equal(generator(z, torch.tensor([0])), generator(z, torch.tensor([1])))


def test_spectral_norm_bounds_the_discriminator():
    discriminator = DCGANDiscriminatorConfig(spectral_norm=True).build(PictureShape(28, 1, 10))
    for _ in range(30):  # each pass in training mode is one step of the power iteration
        discriminator(torch.randn(2, 1, 28, 28), torch.tensor([0, 1]))
    for layer in (discriminator.to_features, discriminator.head.realness, discriminator.head.embedding):
        assert torch.linalg.matrix_norm(layer.weight.detach(), 2).item() == pytest.approx(1, abs=0.05)


def test_a_size_that_does_not_halve_is_refused():
    with pytest.raises(RecipeError, match="not 30"):
        DCGANGeneratorConfig().build(PictureShape(30, 1, 0))
