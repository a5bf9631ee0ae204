"""BentoML the way its tutorial begins: a synchronous API that returns a PIL image, everything at its default."""

import os
import sys
from pathlib import Path

import bentoml
from PIL import Image
from pydantic import BaseModel, Field

from benchmarks.pictures import PORT_VARIABLE, Pictures


class Ask(BaseModel):
    seed: int
    class_: int = Field(alias="class")


@bentoml.service
class Generator:
    def __init__(self) -> None:
        self.pictures = Pictures.from_environment()

    @bentoml.api(route="/generate")
    def generate(self, ask: Ask, /) -> Image.Image:
        pixels = self.pictures.pixels([ask.seed], [ask.class_])[0]
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


if __name__ == "__main__":
    bento = Path(sys.executable).with_name("bentoml")
    service = "benchmarks.rivals.bentoml_tutorial:Generator"
    os.execv(bento, [bento, "serve", service, "--host", "127.0.0.1", "--port", os.environ[PORT_VARIABLE]])
