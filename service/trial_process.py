"""The process in which a graph is opened and run for the first time: python -m service.trial_process

It takes requests on standard input and answers each with one line of JSON; `trial.py` starts it, times it, and ends it.
What a graph can do wrong it does here: take all memory, run without end, crash its runtime.
"""

import json
import os
import sys
import threading
import time
from typing import Any, BinaryIO

from service.errors import InvalidBundle
from service.graph_check import check_graph
from service.memory import available_memory

ROWS = (1, 2, 32)
"""Batches that are tried: the smallest and the largest that are ever run. Sizes follow from nothing else."""
RESERVE = 0.8
"""Share of what memory there is that a trial may take; the rest is for the service beside it."""
COPIES = 3
"""Of the file that are in memory at once: as it came, as it was parsed, as ONNX Runtime holds it."""


def main() -> None:
    """Answer requests until there are no more."""
    # Whatever libraries print must not look like an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    _be_killed_first()
    requests = sys.stdin.buffer
    while line := requests.readline():
        request = json.loads(line)
        answer = {"refused": _try(_read(requests, request["bytes"]), request)}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _try(model: bytes, request: dict[str, Any]) -> str | None:
    """Why the graph is refused; None if it is not."""
    max_bytes = int(min(request["max_bytes"], RESERVE * available_memory()))
    _limit_memory(max_bytes + COPIES * len(model))
    rows = 0
    try:
        check_graph(model)
        session = _open(model)
        inputs = {node.name for node in session.get_inputs()}
        for rows in ROWS:
            feed = _feed(rows, request)
            if inputs != set(feed):
                return None  # the service compares them with the manifest, and says so
            session.run(None, feed)
    except InvalidBundle as error:
        return error.detail
    except Exception as error:  # those of ONNX Runtime share no base class but this one
        text = (str(error).splitlines() or [""])[0]
        if isinstance(error, MemoryError) or "alloc" in text.lower() or "bfc_arena" in text.lower():
            return f"the graph needs more than {max_bytes} bytes of memory for {rows or 'no'} pictures"
        return f"the graph fails on {rows} rows: {text}" if rows else f"ONNX Runtime does not load the graph: {text}"
    return None


def _open(model: bytes) -> Any:
    """A session like that of the service, on one thread of the CPU."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _feed(rows: int, request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415

    z = np.random.default_rng(0).standard_normal((rows, request["z_dim"]), np.float32)
    feed: dict[str, Any] = {"z": z}
    if request["num_classes"]:
        feed["y"] = np.arange(rows) % request["num_classes"]
    if request["truncation"]:
        feed["psi"] = np.ones(rows, np.float32)
    return feed


def _read(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _limit_memory(max_bytes: int) -> None:
    """Let allocations fail that would take more than this beside what the process has. Linux alone holds to it."""
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415

    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + max_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _be_killed_first() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        pass  # the limit above stands


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    import numpy  # noqa: F401
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401 - now, while the service reads the first bundle

    main()
