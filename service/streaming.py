"""Long answers: chunks that are made of pieces, and an end that is never mistaken for the whole."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from itertools import chain
from typing import TypeVar

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.pieces import Pieces
from service.presence import WhenGone, while_connected

T = TypeVar("T")

CHUNK = 64 * 1024
"""Bytes. Smaller chunks are joined: each is a trip from thread to thread, and a header is no sign of success."""
LONGEST_CHUNK = 4 * CHUNK
"""Longer ones are divided: the client must take each within SERVICE_SEND_SECONDS."""


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
