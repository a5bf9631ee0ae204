"""What a bundle says about itself: the contract between `training`, which writes it, and `service`, which reads it."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import InvalidBundle
from service.files import read_file
from service.latents import Scheme

MANIFEST_FILE = "manifest.json"
GENERATOR_FILE = "generator.onnx"
SAMPLES_FILE = "samples.png"
GOLDEN_FILE = "golden.npz"
MAX_MANIFEST_BYTES = 4 * 2**20

Task = Literal["generate", "translate", "enhance", "predict"]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ClassName = Annotated[str, Field(min_length=1, max_length=200)]
Limitation = Annotated[str, Field(max_length=300, pattern=r"^\S(.*\S)?$", description="a sentence, on one line")]
MAX_LIMITATIONS = 32


class Section(BaseModel):
    """Base of everything in a manifest: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Latent(Section):
    """How a seed becomes z, the float32 input [N, z_dim] of the graph."""

    z_dim: int = Field(ge=1, le=65536)
    scheme: Scheme = "philox"
    truncation: Literal["z", "w"] | None = Field(
        default=None, description="what the graph's input `psi` scales, or null if the graph has no such input"
    )


class Picture(Section):
    """uint8 pictures [N, height, width, channels], 0 black to 255 white, sRGB or grey."""

    kind: Literal["picture"] = "picture"
    height: int | None = Field(ge=1, le=8192, description="pixels; null if any height is taken")
    width: int | None = Field(ge=1, le=8192, description="pixels; null if any width is taken")
    channels: Literal[1, 3]
    multiple_of: int = Field(default=1, ge=1, le=8192, description="height and width must be multiples of this")


Level = Annotated[int, Field(ge=0, le=255)]


class SourcePicture(Picture):
    """What a picture must be, or is made, before the graph sees it."""

    halo: int | None = Field(
        default=None,
        ge=0,
        le=8192,
        description="pixels: what lies further than this from a place, across or down, has no influence on it, so that "
        "tiles that overlap by as much show no seam; null if the size is fixed",
    )
    background: tuple[Level, Level, Level] = Field(
        default=(255, 255, 255), description="red, green and blue of what shows through where a picture is transparent"
    )

    @model_validator(mode="after")
    def _can_be_tiled(self) -> "SourcePicture":
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width are both numbers or both null")
        if self.height is None and self.halo is None:
            raise ValueError("a graph that takes any size needs a halo")
        if any(size is not None and size % self.multiple_of for size in (self.height, self.width)):
            raise ValueError("height and width are no multiples of multiple_of")
        return self


class DataSource(Section):
    """A data set that the generator was trained on."""

    name: str
    version: str
    licence: str
    homepage: str
    size: int = Field(ge=1, description="items the generator saw; held-out items are not among them")


class Training(Section):
    """What it took to train the generator."""

    nimg: int = Field(ge=0, description="generator steps until then times the batch size")
    seconds: float | None = Field(
        default=None,
        ge=0,
        description="time that passed while it was trained, summed over all times that it was started; null if unknown",
    )
    devices: tuple[Annotated[str, Field(max_length=300)], ...] = Field(
        default=(), max_length=64, description="what it was trained on, by name, a CPU with the number of threads"
    )


class Metric(Section):
    """One measured number, readable on its own."""

    value: float
    better: Literal["higher", "lower"]
    n: int = Field(ge=1, description="samples that it was measured on")
    floor: dict[str, float] = Field(
        default_factory=dict, description="the same number for real against real, by the kind of split"
    )
    ceiling: float | None = Field(default=None, description="the same number for the worst imitation tried")
    beside: dict[str, float] = Field(
        default_factory=dict, description="the same number for others, by name: `identity` hands back its input"
    )
    judge: str | None = Field(default=None, description="first 12 hex digits of the judging network's sha256")


class Golden(Section):
    """A sample that every faithful runtime makes again."""

    seed: int = Field(ge=0, lt=2**64, description="0 if the graph takes no z")
    label: int | None = Field(default=None, ge=0)
    image_sha256: Sha256 | None = Field(
        default=None, description="of the input picture's bytes in C order; null if the graph takes no picture"
    )
    pixels_sha256: Sha256 = Field(description="of the uint8 array's bytes in C order")


class Hardware(Section):
    """What may change a pixel besides the graph. Where all of it is equal, so are the pictures."""

    machine: str = Field(max_length=200, description="instruction set, as the operating system calls it")
    cpu: str = Field(max_length=200, description="the processor's name, as the operating system tells it")
    extensions: tuple[str, ...] = Field(
        max_length=64, description="of the instruction set, as far as ONNX Runtime chooses its kernels by them"
    )
    provider: str = Field(max_length=200, description="what ONNX Runtime ran the graph on")
    onnxruntime: str = Field(max_length=200, description="its version")


class Manifest(Section):
    """`manifest.json`: with the files it lists, the whole truth about one generator."""

    schema_version: Literal[1] = 1
    name: ModelName
    version: str = Field(min_length=1, max_length=64)
    task: Task
    sha256: dict[FileName, Sha256] = Field(max_length=64, description="of every other file of the bundle")
    latent: Latent | None = None
    classes: tuple[ClassName, ...] | None = Field(
        default=None, min_length=1, max_length=65536, description="names in label order"
    )
    input: SourcePicture | None = None
    output: Picture
    recipe: dict[str, Any] = Field(description="resolved: every default is written out")
    direction: str | None = Field(
        default=None, max_length=64, description="which of the generators that the recipe trains together this one is"
    )
    data: tuple[DataSource, ...]
    licence: str
    training: Training | None = Field(default=None, description="null if the bundle was made before this was kept")
    limitations: tuple[Limitation, ...] = Field(
        default=(), max_length=MAX_LIMITATIONS, description="where it fails, as those who trained it saw it"
    )
    metrics: dict[str, Metric] = Field(default_factory=dict)
    golden: tuple[Golden, ...] = Field(
        default=(), max_length=16384, description=f"{GOLDEN_FILE}, if there is one, holds their pixels in this order"
    )
    golden_made_on: Hardware | None = Field(default=None, description="where the golden samples were made")
    created_with: dict[str, str]

    @model_validator(mode="after")
    def _is_consistent(self) -> "Manifest":
        if GENERATOR_FILE not in self.sha256:
            raise ValueError(f"sha256 does not list {GENERATOR_FILE}")
        if self.task == "generate" and self.latent is None:
            raise ValueError("a bundle whose task is generate needs a latent")
        if self.task != "generate" and self.input is None:
            raise ValueError(f"a bundle whose task is {self.task} needs an input")
        if self.task == "translate" and any(golden.image_sha256 is None for golden in self.golden):
            raise ValueError("the golden samples of a bundle whose task is translate need the hash of their input")
        if self.task == "translate" and self.golden and GOLDEN_FILE not in self.sha256:
            raise ValueError(f"sha256 does not list {GOLDEN_FILE}, which holds the inputs of the golden samples")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes holds a name twice")
        return self

    @cached_property
    def digest(self) -> str:
        """Sha256 over all that a picture depends on besides seed, class, psi and the input; metrics and prose do not
        change it.
        """
        kinds = {"latent", "classes", "output"} | ({"input"} if self.input is not None else set())
        facts = self.model_dump(mode="json", include=kinds)
        canonical = json.dumps({"generator": self.sha256[GENERATOR_FILE], **facts}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """The manifest of a bundle's directory.

        Raises:
            InvalidBundle: if there is none, it is too large, or it breaks the schema; the message says where.
        """
        content = read_file(directory, MANIFEST_FILE, max_bytes=MAX_MANIFEST_BYTES)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise InvalidBundle(f"{MANIFEST_FILE} is invalid at {where}: {first['msg']}") from error

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return self.model_dump_json(indent=2) + "\n"


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
