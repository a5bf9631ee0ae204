"""What requests and answers look like: ranges, defaults, examples. The OpenAPI document is made from these."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from service.bundle import Bundle
from service.formats import FormatName
from service.golden import GoldenReport
from service.latents import SCHEMES
from service.manifest import Manifest, Picture, Task


def _in_thousandths(value: float) -> float:
    if abs(value * 1000 - round(value * 1000)) > 1e-6:
        raise PydanticCustomError("thousandths", "at most three decimals: a sample's id holds thousandths")
    return round(value, 3)


class Ask(BaseModel):
    """Base of every request: frozen, nothing converted, unknown members refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class GenerateRequest(Ask):
    """One picture; `{}` is a random one from the default model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"seed": 42}, {"seed": 7, "class": 3, "truncation": 0.7, "format": "webp"}]}
    )

    model: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="a name from GET /models; the default model if left out"
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**64, description="one seed, one picture; drawn, and told in X-Seed, if left out"
    )
    class_: Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=0)] | None = Field(
        default=None, alias="class", description="name or index; needed by models that know classes, refused by others"
    )
    truncation: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), AfterValidator(_in_thousandths)] = Field(
        default=1.0, description="less variety and fewer failures below 1, where the model can; in thousandths"
    )
    format: FormatName | None = Field(
        default=None, description="wins over `*/*` in Accept; a clash with Accept is a 406; png if neither chooses"
    )


class Answer(BaseModel):
    """Base of every JSON answer: frozen."""

    model_config = ConfigDict(frozen=True)


class ModelSummary(Answer):
    """What a client needs to ask a model for pictures."""

    name: str
    version: str
    task: Task
    digest: str = Field(description="sha256 over all that a picture depends on besides seed, class and truncation")
    seeds: int = Field(description="seeds go from 0 to this, exclusive")
    classes: tuple[str, ...] | None = Field(description="names in label order, or null")
    truncation: bool = Field(description="whether the model takes values below 1")
    output: Picture
    samples: str | None = Field(description="path of a sheet of samples")

    @classmethod
    def of(cls, bundle: Bundle) -> "ModelSummary":
        """The summary of a bundle that is being served."""
        return cls(**_summary(bundle))


class ModelCard(ModelSummary):
    """Everything that is known about a model."""

    provider: str = Field(description="what ONNX Runtime runs it on, as it says itself")
    runs_alone: bool = Field(
        description="whether a picture is the same alone and in a batch; if not, it is never run alone"
    )
    golden: GoldenReport
    manifest: Manifest

    @classmethod
    def of(cls, bundle: Bundle) -> "ModelCard":
        """The card of a bundle that is being served."""
        return cls(
            **_summary(bundle),
            provider=bundle.generator.provider,
            runs_alone=bundle.generator.rows_match,
            golden=bundle.golden,
            manifest=bundle.manifest,
        )


class Refusal(Answer):
    """A bundle that is on disk and not served."""

    name: str
    reason: str


class ModelList(Answer):
    """What this service can do."""

    default: str | None = Field(description="the model of a request that names none")
    models: list[ModelSummary]
    refused: list[Refusal]


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
    assert manifest.latent is not None
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "digest": manifest.digest,
        "seeds": SCHEMES[manifest.latent.scheme][1],
        "classes": manifest.classes,
        "truncation": manifest.latent.truncation is not None,
        "output": manifest.output,
        "samples": None if bundle.samples_png is None else f"/models/{manifest.name}/samples.png",
    }
