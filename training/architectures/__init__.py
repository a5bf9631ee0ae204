"""Architectures: how networks are built. A recipe's `architecture` is a key of one of these."""

from training.architectures import dcgan
from training.architectures.base import DiscriminatorConfig, Generator, GeneratorConfig, PictureShape

GENERATORS: dict[str, type[GeneratorConfig]] = {
    "dcgan": dcgan.DCGANGeneratorConfig,
}

DISCRIMINATORS: dict[str, type[DiscriminatorConfig]] = {
    "dcgan": dcgan.DCGANDiscriminatorConfig,
}

__all__ = ["DISCRIMINATORS", "GENERATORS", "DiscriminatorConfig", "Generator", "GeneratorConfig", "PictureShape"]
