"""Long answers: pieces in order, few of them at a time, and an end that is never mistaken for the whole."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain
from typing import TypeVar

from anyio import CancelScope
from anyio.to_thread import run_sync
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import StreamingResponse

from service.batcher import Batcher, Done, Work

T = TypeVar("T")


def in_order(batcher: Batcher, works: Iterable[Work[T]]) -> Generator[T, None, None]:
    """The results of bulk work, each when its turn comes. Two for each runner are under way.

    Closing the iterator drops what has not been computed.

    Raises:
        Overloaded: at the first result, if too many long answers are being made already.
    """
    batcher.enter_stream()
    under_way: deque[Future[Done[T]]] = deque()
    try:
        for work in works:
            under_way.append(batcher.submit(work, priority="bulk"))
            if len(under_way) > 2 * batcher.runners:
                yield under_way.popleft().result().value
        while under_way:
            yield under_way.popleft().result().value
    finally:
        for future in under_way:
            future.cancel()
        batcher.leave_stream()


async def stream(
    pieces: Generator[object, None, None], chunks: Iterator[bytes], *, media_type: str, headers: dict[str, str]
) -> StreamingResponse:
    """An answer of chunks that are made in threads, as fast as the client takes them.

    What fails before the first chunk is raised here, and can still become a problem. What fails later breaks the
    connection: without the last chunk of the transfer encoding, no client takes the answer for complete.

    Args:
        pieces: from `in_order`; closed at the end, also if the client leaves in the middle.
        chunks: what is made of them.
        media_type: of the answer.
        headers: of the answer.
    """
    try:
        first = await run_sync(next, chunks, b"")
    except BaseException:
        await _close(pieces)
        raise
    return StreamingResponse(_closing(pieces, chain([first], chunks)), media_type=media_type, headers=headers)


async def in_thread(pieces: Generator[object, None, None], make: Callable[[], T]) -> T:
    """What `make` returns when it has taken all pieces, in a thread. If this task is cancelled, so are they."""
    try:
        return await run_sync(make)
    finally:
        await _close(pieces)


async def _closing(pieces: Generator[object, None, None], chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in iterate_in_threadpool(chunks):
            yield chunk
    finally:
        await _close(pieces)


async def _close(pieces: Generator[object, None, None]) -> None:
    with CancelScope(shield=True):  # a client that has gone is the very reason to close
        await run_sync(pieces.close)
