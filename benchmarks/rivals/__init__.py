"""Other ways to serve the same bundle.

Each file is a program that serves `BENCH_BUNDLE` on `BENCH_PORT` of loopback until it is told to stop. It runs in an
environment that holds its package.
"""

from dataclasses import dataclass
from typing import Literal

Wire = Literal["json", "tensor"]
"""`json`: POST {"seed", "class"}, the PNG comes back. `tensor`: Triton's binary protocol, uint64 [seed, class]."""


@dataclass(frozen=True)
class Rival:
    """What the benchmark has to know of one."""

    title: str
    package: str
    """What it is made with; `<package>.txt` pins it, and each has an environment of its own."""
    path: str = "/generate"
    wire: Wire = "json"
    metadata: bool = True
    """Whether its PNG files say what made them, as ours do; a plain file is a little less work."""
    own_pins: bool = False
    """For a package that contradicts constraints.txt: its file pins all that is needed. Else the environment holds
    this project at the versions of constraints.txt, and what the file adds."""


RIVALS: dict[str, Rival] = {
    "triton": Rival(
        "Triton, Python backend",
        "nvidia-pytriton",
        path="/v2/models/generator/infer",
        wire="tensor",
        own_pins=True,
    ),
    "uvicorn_batching": Rival("uvicorn, batching, nothing else", "uvicorn"),
    "fastapi": Rival("FastAPI, one run per request", "fastapi"),
    "litserve": Rival("LitServe, batching", "litserve"),
    "bentoml_batching": Rival("BentoML, adaptive batching", "bentoml"),
    "bentoml_tutorial": Rival("BentoML, as in its tutorial", "bentoml", metadata=False),
}
"""Module in this folder -> what it is."""
