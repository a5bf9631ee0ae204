"""FastAPI without a queue: one run for each request, one process for each CPU."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from benchmarks.pictures import PORT_VARIABLE, Pictures
from service.cpus import available_cpus


class Ask(BaseModel):
    seed: int
    class_: int = Field(alias="class")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    # Not in the module: uvicorn's parent imports it as well, and each worker twice, and each would hold a session.
    yield {"pictures": Pictures.from_environment()}


app = FastAPI(lifespan=lifespan)


@app.post("/generate")
def generate(ask: Ask, request: Request) -> Response:
    pictures: Pictures = request.state.pictures
    return Response(pictures.png([ask.seed], [ask.class_])[0], media_type="image/png")


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.rivals.fastapi:app",
        port=int(os.environ[PORT_VARIABLE]),
        workers=available_cpus(),
        log_level="warning",
        access_log=False,
    )
