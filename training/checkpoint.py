"""All of a run's state in one file, written aside and then moved."""

import os
from pathlib import Path
from typing import Any

import torch


def capture_rng() -> dict[str, Any]:
    """The state of every random generator that a step draws from."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_rng(state: dict[str, Any]) -> None:
    """The reverse of `capture_rng`."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state`; whoever is killed meanwhile leaves the old file whole."""
    aside = path.with_suffix(".writing")
    with aside.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote; tensors and plain values only, never code."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
