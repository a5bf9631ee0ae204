"""What an operator may choose, read once from `SERVICE_*` environment variables. The defaults suit a laptop."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Provider = Literal["auto", "cpu", "cuda"]


class Settings(BaseSettings):
    """The service's settings; each field is the variable `SERVICE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_", frozen=True)

    models_dir: Path = Field(default=Path("models"), description="directory whose sub-directories are the bundles")
    default_model: str | None = Field(
        default=None, description="bundle for requests that name none; unset means the first by name"
    )
    provider: Provider = Field(
        default="auto",
        description="where generators run; `cuda` refuses to serve from a CPU, `auto` takes what there is",
    )
    max_bundle_bytes: int = Field(default=2 * 2**30, ge=1, description="largest bundle, all files together")
    trial_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="time for a bundle's graph to open and make a few pictures in a process of its own, before it is "
        "served; 0 trusts every bundle",
    )
    trial_bytes: int = Field(default=4 * 2**30, ge=1, description="memory for that, besides the graph itself")
    max_body_bytes: int = Field(default=64 * 1024, ge=1, description="largest request body")
    deadline_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="time in which an answer must begin; later it is a 504"
    )
    drain_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="after SIGTERM, time for load balancers to see /readyz fail while requests are still taken",
    )

    @classmethod
    def from_environment(cls) -> "Settings":
        """The settings, or the end of the process with one line for each variable that is wrong."""
        try:
            return cls()
        except ValidationError as error:
            raise SystemExit(
                "\n".join(
                    f"SERVICE_{str(e['loc'][0]).upper()}={e['input']!r} is not usable: {e['msg']}"
                    for e in error.errors(include_url=False)
                )
            ) from None
