"""All of a run's state in one file, written aside and then moved; its SHA-256 stands at its end."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from training.files import written_aside

MARK = b"\nsha256\n"
"""Stands between what torch wrote and the hash of it."""
HASH = hashlib.sha256().digest_size
TRAILER = len(MARK) + HASH


class StateError(Exception):
    """A saved state that cannot be gone on from; the message says what to do."""


def capture_rng(device: torch.device) -> dict[str, Any]:
    """The state of every random generator that a step on `device` draws from."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
    }


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    """The reverse of `capture_rng`, on a machine that may have fewer GPUs, or none.

    States from before hold one entry for each GPU that could be seen; the first, which runs use, is the run's own.
    """
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"][0], device)


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state`; whoever is killed meanwhile leaves the old file whole.

    Raises:
        OSError: if there is no room for it, or no right to write; nothing stays behind.
    """
    # In memory first: torch's writer turns a full disk into an error that names its own source.
    whole = io.BytesIO()
    torch.save(state, whole)
    with written_aside(path, durable=True) as aside, aside.open("wb") as stream:
        stream.write(whole.getbuffer())
        stream.write(MARK + hashlib.sha256(whole.getbuffer()).digest())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote; tensors and plain values only, never code. A file from before there was a hash is read too.

    Raises:
        StateError: if it is not what was written.
    """
    advice = f"put a copy of it back, or delete {path.parent} and start anew"
    whole = path.read_bytes()
    written, mark, sha256 = whole[:-TRAILER], whole[-TRAILER:-HASH], whole[-HASH:]
    if mark != MARK:
        written = whole
    elif hashlib.sha256(written).digest() != sha256:
        raise StateError(f"{path} is damaged: its bytes are not those that were saved; {advice}")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(written), map_location="cpu", weights_only=True)
    except Exception as error:  # of what is no state, torch complains in a dozen ways
        raise StateError(f"{path} is damaged: {len(whole)} bytes, and no whole state in them; {advice}") from error
    return state
