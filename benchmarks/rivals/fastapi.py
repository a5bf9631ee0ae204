"""FastAPI without a queue: one run for each request, one process for each CPU."""

import os

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, Field

from benchmarks.pictures import PORT_VARIABLE, Pictures
from service.cpus import available_cpus


class Ask(BaseModel):
    seed: int
    class_: int = Field(alias="class")


app = FastAPI()
pictures = Pictures.from_environment()


@app.post("/generate")
def generate(ask: Ask) -> Response:
    return Response(pictures.png([ask.seed], [ask.class_])[0], media_type="image/png")


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.rivals.fastapi:app",
        port=int(os.environ[PORT_VARIABLE]),
        workers=available_cpus(),
        log_level="warning",
        access_log=False,
    )
