"""Architectures: how networks are built. A recipe's `architecture` is a key of one of these."""

from training.architectures import dcgan, patch, resnet, unet
from training.architectures.base import (
    ADAPTED_TO,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    PictureShape,
    Translator,
    TranslatorConfig,
)

GENERATORS: dict[str, type[GeneratorConfig]] = {
    "dcgan": dcgan.DCGANGeneratorConfig,
}

DISCRIMINATORS: dict[str, type[DiscriminatorConfig]] = {
    "dcgan": dcgan.DCGANDiscriminatorConfig,
}

TRANSLATORS: dict[str, type[TranslatorConfig]] = {
    "resnet": resnet.ResNetConfig,
    "unet": unet.UNetConfig,
}

PATCH_DISCRIMINATORS: dict[str, type[PatchDiscriminatorConfig]] = {
    "patch": patch.PatchConfig,
}

__all__ = [
    "ADAPTED_TO",
    "DISCRIMINATORS",
    "GENERATORS",
    "PATCH_DISCRIMINATORS",
    "TRANSLATORS",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "PictureShape",
    "Translator",
    "TranslatorConfig",
]
