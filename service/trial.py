"""Opens and runs a graph in a process of its own before the service does, with a limit on time and on memory.

A graph from a stranger may ask for a terabyte, compute for a year, or crash its runtime. None of that can be read off a
file, and none of it can be stopped within a process: one operator of ONNX Runtime cannot be interrupted.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock, Timer
from typing import IO, TYPE_CHECKING, Self

from service.errors import InvalidBundle
from service.trial_process import ROWS

if TYPE_CHECKING:  # this module is imported first of all, to start the process early
    from service.manifest import Manifest

COMMAND = (sys.executable, "-P", "-m", "service.trial_process")


_started_early: list["subprocess.Popen[bytes]"] = []


def start_early() -> None:
    """Start the process of the next `Trial` now: its imports take as long as those of whoever calls, beside them."""
    with suppress(OSError):  # whoever needs it says so
        _started_early.append(_start())


class Trial:
    """One process for all bundles, which are tried one after the other; another one if a graph has ended it.

    Args:
        seconds: for one graph to open and to make `ROWS` pictures, on one thread of the CPU.
        max_bytes: memory for that, besides the file itself.
    """

    def __init__(self, *, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with suppress(OSError):  # whoever needs it says so
            self._process = _started_early.pop() if _started_early else _start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            _end(self._process)

    def __call__(self, model: bytes, manifest: "Manifest") -> None:
        """Pass if the graph opens, runs, and stays within the limits.

        Raises:
            InvalidBundle: if it does not, or cannot be tried.
        """
        assert manifest.latent is not None
        request = {
            "bytes": len(model),
            "max_bytes": self._max_bytes,
            "z_dim": manifest.latent.z_dim,
            "num_classes": len(manifest.classes or ()),
            "truncation": manifest.latent.truncation is not None,
        }
        with self._lock:
            try:
                # Once more in a fresh process: what ended it may be another bundle's doing, or the machine's.
                answer = self._ask(request, model) or self._ask(request, model)
            except OSError as error:
                raise InvalidBundle(
                    f"its graph cannot be tried in a process of its own: {error.strerror}; "
                    "SERVICE_TRIAL_SECONDS=0 trusts every bundle"
                ) from error
        if answer is None:
            raise InvalidBundle("opening or running its graph ends the process that tries it")
        if answer["refused"] is not None:
            raise InvalidBundle(answer["refused"])

    def _ask(self, request: dict[str, int], model: bytes) -> dict[str, str | None] | None:
        """The process's answer; None if it ended instead."""
        process = self._process = self._process or _start()
        late = False

        def kill() -> None:
            nonlocal late
            late = True
            process.kill()

        timer = Timer(self._seconds, kill)
        timer.daemon = True
        timer.start()
        line = _exchange(process, json.dumps(request).encode() + b"\n", model)
        timer.cancel()
        timer.join()  # it may be about to strike
        if line.endswith(b"\n") and not late:
            answer: dict[str, str | None] = json.loads(line)
            return answer
        self._process = None
        process.kill()
        _end(process)
        if late:
            raise InvalidBundle(
                f"opening its graph and making {', '.join(map(str, ROWS))} pictures took more than the "
                f"{self._seconds:g} seconds of SERVICE_TRIAL_SECONDS"
            )
        return None


def _start() -> subprocess.Popen[bytes]:
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def _exchange(process: subprocess.Popen[bytes], request: bytes, model: bytes) -> bytes:
    """The answer; not a whole line if the process ended instead."""
    requests, answers = _pipes(process)
    try:
        requests.write(request)
        requests.write(model)
        requests.flush()
        return answers.readline()
    except OSError:  # a broken pipe
        return b""


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that has been killed."""
    for pipe in _pipes(process):
        with suppress(OSError):  # what was written last may have no reader any more
            pipe.close()
    process.wait()
