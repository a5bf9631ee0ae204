"""A bare ASGI application with a queue, one process for each CPU: what HTTP in Python costs at the least.

It checks nothing, bounds nothing and tells nothing: a wrong request is a broken connection, a slow client a leak.
"""

import asyncio
import json
import os
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import uvicorn

from benchmarks.pictures import MAX_BATCH, PORT_VARIABLE, Pictures
from service.cpus import available_cpus

Waiting = tuple[int, int, "asyncio.Future[bytes]"]


class Batching:
    """Runs whatever waits, at most `MAX_BATCH` at a time, in one thread."""

    def __init__(self, pictures: Pictures) -> None:
        self.queue: SimpleQueue[Waiting] = SimpleQueue()
        self._pictures = pictures
        self._loop = asyncio.get_running_loop()
        Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            batch = [self.queue.get()]
            try:
                while len(batch) < MAX_BATCH:
                    batch.append(self.queue.get_nowait())
            except Empty:
                pass
            seeds, labels, futures = zip(*batch, strict=True)
            self._loop.call_soon_threadsafe(self._tell, futures, self._pictures.png(seeds, labels))

    def _tell(self, futures: tuple["asyncio.Future[bytes]", ...], files: list[bytes]) -> None:
        for future, file in zip(futures, files, strict=True):
            if not future.done():
                future.set_result(file)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """`POST /generate`, and nothing else."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["batching"] = Batching(Pictures.from_environment())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    ask = json.loads((await receive())["body"])
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    scope["state"]["batching"].queue.put((ask["seed"], ask["class"], future))
    file = await future
    headers = [(b"content-type", b"image/png"), (b"content-length", b"%d" % len(file))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": file})


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.rivals.uvicorn_batching:app",
        port=int(os.environ[PORT_VARIABLE]),
        workers=available_cpus(),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
