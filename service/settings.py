"""What an operator may choose, read once from `SERVICE_*` environment variables. The defaults suit a laptop."""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from service.batcher import QueueLimits
from service.cuda import CudaSettings
from service.files import MAX_BUNDLE_BYTES
from service.origins import Origins
from service.runtime import Provider

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
AccessLog = Literal["failures", "all"]

OF_KUBERNETES = re.compile("SERVICE_HOST|SERVICE_PORT.*|PORT.*")
"""What follows SERVICE_ in what it sets in every container of a namespace that has a Service named `service`."""


class Settings(CudaSettings):
    """The service's settings; each field is the variable `SERVICE_<FIELD>`. Those of CUDA stand in `cuda.py`."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_", env_ignore_empty=True, frozen=True)

    # What is served.
    models_dir: Path = Field(default=Path("models"), description="directory whose sub-directories are the bundles")
    default_model: str | None = Field(
        default=None, description="bundle for requests that name none; unset means the first by name"
    )
    provider: Provider = Field(
        default="auto",
        description="where generators run; `cuda` refuses to serve from a CPU, `auto` takes what there is",
    )
    max_bundle_bytes: int = Field(default=MAX_BUNDLE_BYTES, ge=1, description="largest bundle, all files together")
    processes: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="processes that compute; unset is one for each CPU, or one for a GPU; 0 computes in the server's "
        "own process, which takes less memory and is slower",
    )
    trial_seconds: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="time for a bundle's graph to open and to make its first pictures in such a process; 0 trusts "
        "every bundle with any time and memory",
    )
    trial_bytes: int = Field(default=4 * 2**30, ge=1, description="memory for that, besides the graph itself")

    # How much a request may bring, and how long things may take.
    max_body_bytes: int = Field(default=64 * 1024, ge=1, description="largest JSON body")
    max_upload_bytes: int = Field(default=16 * 2**20, ge=1, description="largest upload, be it one picture or many")
    upload_memory_bytes: int = Field(
        default=128 * 2**20, ge=1, description="most bytes of uploads that are in memory at a time; more are a 429"
    )
    max_uploads: int = Field(default=1000, ge=1, description="most pictures in one request to /translate")
    max_count: int = Field(default=1_000_000, ge=1, description="most pictures of one request to /sample")
    max_pixels: int = Field(
        default=16 * 2**20,
        ge=1,
        le=2**27,
        description="most pixels of a contact sheet, of an animation, and of all the pictures in an upload",
    )
    queue_rows: int = Field(
        default=QueueLimits.rows, ge=1, description="most pictures that wait for one model; more are a 429"
    )
    queue_pixels: int = Field(default=QueueLimits.pixels, ge=1, description="most pixels that wait for one model")
    max_streams: int = Field(
        default=QueueLimits.bulk_streams, ge=1, description="most long answers that one model works on at a time"
    )
    stall_seconds: float = Field(
        default=120.0,
        gt=0,
        description="a batch that runs longer than this makes /livez fail, to be restarted; a process that says "
        "nothing for half as long is replaced",
    )
    body_seconds: float = Field(default=10.0, gt=0, le=3600, description="time in which a whole body must come")
    deadline_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="time in which an answer must begin; later it is a 504"
    )
    send_seconds: float = Field(
        default=120.0, gt=0, le=3600, description="time in which a client must take each part of an answer"
    )
    drain_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="after SIGTERM, time for load balancers to see /readyz fail while requests are still taken",
    )

    # Who may call.
    api_keys_file: Path | None = Field(
        default=None, description="file of bearer keys, one on each line; unset means that everybody may call"
    )
    metrics_need_key: bool = Field(default=False, description="with keys: whether /metrics needs one too")
    cors_origins: Origins = Field(
        default=(), description="origins whose pages may call from a browser, separated by commas, or `*`"
    )

    # What it tells its operator.
    log_format: LogFormat = Field(default="text", description="`json` writes one object on each line")
    log_level: LogLevel = Field(default="info", description="the least that the service's own log lines must be")
    access_log: AccessLog = Field(
        default="failures",
        description="which requests get a log line: those answered with a status of 400 or more, or all",
    )
    tracing: Literal["otlp"] | None = Field(
        default=None, description="`otlp` exports a span for each request, as the standard OTEL_* variables say"
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


def stray_variables() -> list[str]:
    """What is wrong with variables that look like settings and are none: a misspelt one protects nothing."""
    known = [name.upper() for name in Settings.model_fields]
    named = {name: name.upper().removeprefix("SERVICE_") for name in os.environ if name.upper().startswith("SERVICE_")}
    strays = {name: rest for name, rest in named.items() if rest not in known and not OF_KUBERNETES.fullmatch(rest)}
    return [
        f"{name} is not a setting; "
        + (f"is it SERVICE_{near[0]}?" if (near := get_close_matches(rest, known, 1)) else "nothing reads it")
        for name, rest in sorted(strays.items())
    ]
