"""Long answers: pieces in order, few of them at a time, and an end that is never mistaken for the whole."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from functools import partial
from itertools import chain
from threading import Lock
from typing import Generic, TypeVar

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.batcher import Batcher
from service.jobs import Done
from service.presence import WhenGone, while_connected
from service.work import Work

T = TypeVar("T")

CHUNK = 64 * 1024
"""Bytes. Smaller chunks are joined: each is a trip from thread to thread, and a header is no sign of success."""
LONGEST_CHUNK = 4 * CHUNK
"""Longer ones are divided: the client must take each within SERVICE_SEND_SECONDS."""


class Pieces(Generic[T]):
    """The results of bulk work, each when its turn comes. Two for each runner are under way.

    Args:
        batcher: that does the work.
        works: in order.
        pixels: of all works together; 0 if nobody knows.
        deadline: `time.monotonic()` by which all must have been computed; infinite if their beginning is sent before.

    One thread iterates; any other may close. That drops what has not been computed and gives the place among the long
    answers back, once nobody keeps it; the thread that iterates is woken if what it waits for is dropped.

    Raises:
        Overloaded: at the first piece, if too many long answers are being made already, or too much for a deadline.
        CancelledError: at the next piece, once closed.
    """

    def __init__(
        self, batcher: Batcher, works: Iterable[Work[T]], *, pixels: int = 0, deadline: float = math.inf
    ) -> None:
        self._batcher = batcher
        self._works = iter(works)
        self._pixels = pixels
        self.deadline = deadline
        self._begun = 0
        self._under_way: deque[Future[Done[T]]] = deque()
        self._entered = False
        self._closed = False
        self._keepers = 0
        self._lock = Lock()

    @property
    def pixels_left(self) -> int:
        """Of the works that have not begun."""
        return max(0, self._pixels - self._begun)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while len(self._under_way) <= 2 * self._batcher.runners and (work := next(self._works, None)) is not None:
            with self._lock:
                self._check_open()
                if not self._entered:
                    self._batcher.enter_stream(self)
                    self._entered = True
                self._under_way.append(self._batcher.submit(work, priority="bulk"))
                self._begun += work.pixels
        if not self._under_way:
            self._check_open()
            raise StopIteration  # whoever has the place keeps it until what was made of the pieces has been sent
        with self._lock:
            self._check_open()
            future = self._under_way[0]
        done = future.result()
        with self._lock:
            self._check_open()
            self._under_way.popleft()
        return done.value

    def close(self) -> None:
        """End the work; closing again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for future in self._under_way:
                future.cancel()
            self._under_way.clear()  # what has been made is held by nobody else
            self._leave()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the place while something is made of them, whoever closes them meanwhile.

        A thread cannot be stopped: with places given back, one client with short deadlines could have any number of
        files written at a time, for nobody.
        """
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                self._leave()

    def _leave(self) -> None:
        if self._entered and self._closed and not self._keepers:
            self._entered = False
            self._batcher.leave_stream(self)

    def _check_open(self) -> None:
        if self._closed:
            raise CancelledError("nobody waits for these pieces any more")


class PiecesResponse(StreamingResponse):
    """An answer of chunks that are made of pieces; however it ends, they are closed and let go of."""

    def __init__(self, pieces: Pieces[T], chunks: Iterator[bytes], *, media_type: str, headers: dict[str, str]) -> None:
        super().__init__(self._taken(), media_type=media_type, headers=headers)
        self.pieces = pieces
        self.chunks = chunks
        self._left = self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        when_gone: WhenGone = scope["state"].get("when_gone") or (lambda call: None)
        when_gone(self._leave)
        try:
            await super().__call__(scope, receive, scope["state"]["clock"].watch(send))
        finally:
            when_gone(None)
            self.pieces.close()
            # An answer that is broken off lives on in the cycles of its exception until the collector comes; megabytes
            # of pictures must not.
            self.chunks = iter(())
        if not self._ended:
            raise ClientDisconnect

    def _leave(self) -> None:
        """The client has gone. The thread that makes the next chunk is waited for, so drop what that waits for."""
        self._left = True
        self.pieces.close()

    def _taken(self) -> Iterator[bytes]:
        try:
            while (chunk := next(self.chunks, None)) is not None:
                yield chunk
            self._ended = True
        except CancelledError:
            if self._left:
                raise ClientDisconnect from None
            raise


async def stream(
    request: Request, pieces: Pieces[T], chunks: Iterator[bytes], *, media_type: str, headers: dict[str, str]
) -> PiecesResponse:
    """An answer of chunks that are made in threads, as fast as the client takes them.

    What fails before the first chunk is raised here, and can still become a problem. What fails later breaks the
    connection: without the last chunk of the transfer encoding, no client takes the answer for complete.

    Args:
        request: whose client is watched.
        pieces: closed at the end, also if the client leaves in the middle.
        chunks: what is made of them.
        media_type: of the answer.
        headers: of the answer.
    """
    chunks = joined(chunks)
    first = await in_thread(request, pieces, partial(next, chunks, b""))
    return PiecesResponse(pieces, chain([first], chunks), media_type=media_type, headers=headers)


def joined(chunks: Iterable[bytes], size: int = CHUNK) -> Iterator[bytes]:
    """The same bytes in chunks of `size` or more, but for the last, and none longer than `LONGEST_CHUNK`."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= size:
            for start in range(0, len(held), LONGEST_CHUNK):
                yield bytes(held[start : start + LONGEST_CHUNK])
            held.clear()
    if held:
        yield bytes(held)


async def in_thread(request: Request, pieces: Pieces[T], make: Callable[[], bytes]) -> bytes:
    """What `make` makes of pieces, in a thread. If that fails, the client leaves, or this task is cancelled, they are
    closed.
    """

    def make_in_place() -> bytes:
        with pieces.kept():
            return make()

    try:
        # The thread may be left behind: it ends at its next piece, or when it has written its file.
        return await while_connected(request, run_sync(make_in_place, abandon_on_cancel=True))
    except BaseException:
        pieces.close()
        raise
