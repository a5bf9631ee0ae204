"""BentoML's adaptive batching in the form its guide gives for several parameters: a batchable service behind an API.

Better than the defaults in what the configuration offers: a worker for each CPU, no shedding, no access log, no traces,
and no limit of requests for a connection between the two services, after which the shared client is closed
under requests that are still being answered.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.pictures import MAX_BATCH, PORT_VARIABLE, Pictures
from service.cpus import available_cpus

QUIET = {"logging": {"access": {"enabled": False}}, "tracing": {"excluded_urls": ".*"}, "metrics": {"enabled": False}}
# Of the service that is called, though it is the caller's.
UNENDING = {"max_requests": 10**9, "max_age": 1e9}


class Ask(BaseModel):
    model_config = ConfigDict(populate_by_name=True)  # BentoML sends it from one service to the other without the alias

    seed: int
    class_: int = Field(alias="class")


@bentoml.service(workers=available_cpus(), runner_connection=UNENDING, **QUIET)
class Generator:
    def __init__(self) -> None:
        self.pictures = Pictures.from_environment()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
    def png(self, asks: list[Ask]) -> list[bytes]:
        return self.pictures.png([ask.seed for ask in asks], [ask.class_ for ask in asks])


@bentoml.service(workers=available_cpus(), **QUIET)
class Gateway:
    generator = bentoml.depends(Generator)

    @bentoml.api(route="/generate")
    async def generate(self, ask: Ask, /) -> Annotated[bytes, ContentType("image/png")]:
        return (await self.generator.to_async.png([ask]))[0]


if __name__ == "__main__":
    bento = Path(sys.executable).with_name("bentoml")
    service = "benchmarks.rivals.bentoml_batching:Gateway"
    os.execv(bento, [bento, "serve", service, "--host", "127.0.0.1", "--port", os.environ[PORT_VARIABLE]])
