"""What requests and answers look like: ranges, defaults, examples. The OpenAPI document is made from these."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.animations import AnimationName
from service.archives import ArchiveName, ContainerName
from service.bundle import Bundle
from service.errors import InvalidValue
from service.formats import FormatName
from service.golden import GoldenReport
from service.manifest import Manifest, Picture, SourcePicture, Task
from service.plan import Ranges
from service.sample import in_thousandths


def _in_thousandths(value: float) -> float:
    try:
        return in_thousandths(value)
    except ValueError:
        raise PydanticCustomError("thousandths", "at most three decimals: a sample's id holds thousandths") from None


class Ask(BaseModel):
    """Base of every request: frozen, nothing converted, unknown members refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


ModelField = Annotated[str, Field(max_length=64)] | None
SeedField = Annotated[int, Field(ge=0, lt=2**64)]
CountField = Annotated[int, Field(ge=0, lt=2**64)]
ClassName = Annotated[str, Field(max_length=200)]
ClassField = ClassName | Annotated[int, Field(ge=0, lt=10**9)]
TruncationField = Annotated[float, Field(ge=0.001, le=1, allow_inf_nan=False), AfterValidator(_in_thousandths)]
A_MODEL = "a name from GET /models; the default model if left out"
TRUNCATION = "less variety and fewer failures below 1, where the model can; in thousandths"


def _seed_ranges(text: str) -> str:
    for part in text.split(","):
        if not SEED_RANGE.fullmatch(part.strip()) or not _range(part):
            raise PydanticCustomError("seed_ranges", "seeds and ranges like 0-99,200 with the smaller number first")
        if _range(part)[-1] >= 2**64:
            raise PydanticCustomError("seed_ranges", "seeds are below 2**64")
    return text


def _range(part: str) -> range:
    first, _, last = part.strip().partition("-")
    return range(int(first), int(last or first) + 1)


SEED_RANGE = re.compile("[0-9]{1,20}(-[0-9]{1,20})?")
SeedRanges = Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(_seed_ranges)]


class GenerateRequest(Ask):
    """One picture; a seed that is left out is drawn."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "fashion", "seed": 42, "class": "sneaker", "truncation": 1.0, "format": "png"},
                {"seed": 7, "class": 3, "truncation": 0.7, "format": "webp"},
            ]
        }
    )

    model: ModelField = Field(default=None, description=A_MODEL)
    seed: SeedField | None = Field(
        default=None, description="one seed, one picture; drawn, and told in X-Seed, if left out"
    )
    class_: ClassField | None = Field(
        default=None, alias="class", description="name or index; needed by models that know classes, refused by others"
    )
    truncation: TruncationField = Field(default=1.0, description=TRUNCATION)
    format: FormatName | None = Field(
        default=None, description="wins over `*/*` in Accept; a clash with Accept is a 406; png if neither chooses"
    )


class SampleRequest(Ask):
    """Many pictures in one stream, in the order of their seeds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"seed": 0, "count": 16, "format": "sheet"},
                {"seeds": "0-9,42", "classes": 3},
                {"seed": 7, "classes": {"0": 4, "1": 2}, "format": "tar"},
            ]
        }
    )

    model: ModelField = Field(default=None, description=A_MODEL)
    seed: SeedField | None = Field(
        default=None, description="sample i has seed + i, modulo the model's number of seeds; drawn if left out"
    )
    count: Annotated[CountField, Field(ge=1)] | None = Field(
        default=None, description="how many; left out, the sum of a histogram in classes"
    )
    seeds: SeedRanges | Annotated[list[SeedField | SeedRanges], Field(min_length=1, fail_fast=True)] | None = Field(
        default=None, description="instead of seed and count: seeds, or ranges like `0-99,200`, both ends included"
    )
    classes: ClassField | Annotated[list[ClassField], Field(fail_fast=True)] | dict[ClassName, CountField] | None = (
        Field(
            default=None,
            description="one class for all, several that take turns, or `{class: count}` one after the other; "
            "left out, all classes take turns",
        )
    )
    start: CountField = Field(
        default=0,
        description="how many of them to leave out, from the first on, for example those that an answer brought before "
        "it was cut; the others keep their seeds, classes and names",
    )
    truncation: TruncationField = Field(default=1.0, description=TRUNCATION)
    format: ArchiveName | None = Field(
        default=None, description="the container; wins over `*/*` in Accept; zip if neither chooses"
    )
    picture: FormatName = Field(default="png", description="how pictures are stored in a zip, tar or json")

    def ranges(self) -> Ranges | None:
        """The member `seeds`, in order."""
        if self.seeds is None:
            return None
        parts = [self.seeds] if isinstance(self.seeds, str) else self.seeds
        return Ranges([_range(piece) for part in parts for piece in str(part).split(",")])


class Point(Ask):
    """A sample to pass through."""

    seed: SeedField
    class_: ClassField | None = Field(default=None, alias="class", description="instead of the request's")


class Waypoint(NamedTuple):
    """A point, and where in the request stands what it is made of."""

    seed: int
    class_: str | int | None
    pointers: dict[str, str]
    """The pointer in a request for one sample -> that in this one, if it is another."""


class InterpolateRequest(Ask):
    """The way from one sample to the next, on the sphere on which latents lie."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"from": 1, "to": 2, "class": 0, "steps": 8},
                {"points": [1, {"seed": 2, "class": 1}, 3], "class": 0, "loop": True, "format": "webp"},
            ]
        }
    )

    model: ModelField = Field(default=None, description=A_MODEL)
    from_: SeedField | Point | None = Field(default=None, alias="from", description="where it begins")
    to: SeedField | Point | None = Field(default=None, description="where it ends")
    points: Annotated[list[SeedField | Point], Field(min_length=2, max_length=64)] | None = Field(
        default=None, description="instead of from and to: two or more, in order"
    )
    class_: ClassField | None = Field(
        default=None, alias="class", description="of points that name none; a class changes half way between two points"
    )
    steps: int = Field(default=16, ge=1, le=240, description="frames from one point to the next")
    loop: bool = Field(
        default=False, description="whether it returns to the first point, for an animation without a jump"
    )
    milliseconds: int = Field(default=80, ge=20, le=10_000, description="time that each frame is shown")
    format: AnimationName | None = Field(default=None, description="gif if neither this nor Accept chooses")

    def way(self) -> Iterator[Waypoint]:
        """The points, each with its class.

        Raises:
            InvalidValue: if it is neither from and to, nor points.
        """
        ends = {"/from": self.from_, "/to": self.to}
        given = {pointer: end for pointer, end in ends.items() if end is not None}
        if (len(given) == 2) == (self.points is not None) or len(given) == 1:
            wrong = "/points" if self.points is not None or not given else next(iter(ends.keys() - given.keys()))
            raise InvalidValue("send from and to, or points; not both, not one end alone", pointer=wrong)
        if self.points is not None:
            given = {f"/points/{index}": point for index, point in enumerate(self.points)}
        for pointer, point in given.items():
            if isinstance(point, int):
                yield Waypoint(point, self.class_, {"/seed": pointer})
            elif point.class_ is None:
                yield Waypoint(point.seed, self.class_, {"/seed": f"{pointer}/seed"})
            else:
                yield Waypoint(point.seed, point.class_, {name: pointer + name for name in ("/seed", "/class")})


class TranslateRequest(Ask):
    """What may be said beside pictures, in the query or in the form."""

    model: ModelField = Field(default=None, description=A_MODEL)
    seed: SeedField | None = Field(
        default=None,
        description="of all pictures of the request, where the model takes one (it has `seeds`); drawn, and told in "
        "X-Seed, if left out. Several outputs of one picture are several seeds",
    )
    format: FormatName | ContainerName | None = Field(
        default=None,
        description="one picture comes as it is, png if neither this nor Accept chooses, or in a container; several "
        "come in a zip or a tar",
    )
    picture: FormatName | None = Field(default=None, description="how pictures are stored in a zip or tar; png")


class Answer(BaseModel):
    """Base of every JSON answer: frozen."""

    model_config = ConfigDict(frozen=True)


class ModelSummary(Answer):
    """What a client needs to ask a model for pictures."""

    name: str
    version: str
    task: Task
    digest: str = Field(
        description="sha256 over all that a picture depends on besides seed, class, truncation and the input"
    )
    seeds: int = Field(description="seeds go from 0 to this, exclusive; 0 if the model takes none")
    classes: tuple[str, ...] | None = Field(description="names in label order, or null")
    truncation: bool = Field(description="whether the model takes values below 1")
    input: SourcePicture | None = Field(
        description="the picture that the model takes; one of another size is made to fit. Null if it takes none"
    )
    output: Picture
    samples: str | None = Field(description="path of a sheet of samples")

    @classmethod
    def of(cls, bundle: Bundle) -> "ModelSummary":
        """The summary of a bundle that is being served."""
        return cls(**_summary(bundle))


class ModelCard(ModelSummary):
    """Everything that is known about a model."""

    provider: str = Field(description="what ONNX Runtime runs it on, as it says itself")
    determinism: str = Field(
        description="how the promise is kept on this replica: `exact` if the warm-up found every row the same in any "
        "company, and the batch size, `free` or fixed; the same as X-Determinism"
    )
    runners: int = Field(description="batches that are computed at a time")
    max_batch: int = Field(
        description="most pictures that are computed together; of a model that takes any size, if they are small"
    )
    max_batch_pixels: int = Field(description="most pixels of them together; a picture that has more is computed alone")
    pictures_per_second: float | None = Field(description="as measured, lately; null if their size is not fixed")
    megapixels_per_second: float = Field(description="millions of pixels that come out, as measured, lately")
    golden: GoldenReport
    manifest: Manifest

    @classmethod
    def of(cls, bundle: Bundle) -> "ModelCard":
        """The card of a bundle that is being served."""
        batcher, output = bundle.batcher, bundle.manifest.output
        pixels = None if output.height is None or output.width is None else output.height * output.width
        pixels_per_second = batcher.runners / batcher.pace.seconds_per_pixel
        return cls(
            **_summary(bundle),
            provider=bundle.measured.provider,
            determinism=bundle.measured.determinism,
            runners=batcher.runners,
            max_batch=batcher.max_rows if pixels is None else batcher.rows_of(pixels),
            max_batch_pixels=batcher.pace.max_pixels,
            pictures_per_second=None if pixels is None else round(pixels_per_second / pixels, 1),
            megapixels_per_second=round(pixels_per_second / 1e6, 3),
            golden=bundle.golden,
            manifest=bundle.manifest,
        )


class Refusal(Answer):
    """A bundle that is on disk and not served."""

    name: str
    reason: str


class ModelList(Answer):
    """What this service can do."""

    default: str | None = Field(description="the model of a request for pictures from seeds that names none")
    defaults: dict[Task, str] = Field(description="the model of a request that names none, by task")
    models: list[ModelSummary]
    refused: list[Refusal]


class SampleFile(Answer):
    """A sample and its picture's file."""

    id: str
    model: str
    version: str
    digest: str
    seed: int
    class_: str | None = Field(alias="class")
    label: int | None
    truncation: float
    media_type: str = Field(description="of the file")
    image: str = Field(description="the file in base64")


class SampleList(Answer):
    """What /sample answers with `format` `json`."""

    samples: list[SampleFile]


class Verdict(Answer):
    """From what a picture was made, and how exactly it is that."""

    made_here: bool = Field(description="whether a bundle that is served here made it")
    match: Literal["bytes", "pixels", "near", "different", "unknown"] = Field(
        description="the file is the one that is made now; or its pixels are; or none is more than 2 levels off; "
        "or some are; or nothing says what it should be"
    )
    detail: str
    sample: dict[str, Any] | None = Field(
        description="the sample of the id in the file; where nothing is compared, what the file says, unless it is long"
    )
    largest_difference: int | None = Field(default=None, description="levels of 255, over all values")
    mean_difference: float | None = Field(default=None, description="levels of 255")


class Status(Answer):
    """The answer of a probe that succeeds."""

    status: Literal["alive", "ready"]


class Problem(BaseModel):
    """application/problem+json (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="`urn:ganery:problem:` and a stable name")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="what came, what is allowed, what to do")
    pointer: str | None = Field(default=None, description="JSON pointer (RFC 6901) to the member that is wrong")
    choices: list[str | int] | None = Field(default=None, description="what would have been right")
    request_id: str = Field(description="the same as X-Request-Id, and in the service's log")


def _summary(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "digest": manifest.digest,
        "seeds": bundle.seeds,
        "classes": manifest.classes,
        "truncation": manifest.latent is not None and manifest.latent.truncation is not None,
        "input": manifest.input,
        "output": manifest.output,
        "samples": None if bundle.samples_png is None else f"/models/{manifest.name}/samples.png",
    }
