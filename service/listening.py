"""How the worker begins and stops to listen: nobody who connects waits longer than needed, or is lost."""

import asyncio
import ctypes
import logging
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

ACCEPT_AGAIN_SECONDS = 1
"""After a connection could not be accepted, as asyncio has it."""
OPENING_SECONDS = 0.1
"""While the server stops: in which connections that are being opened may come to be."""
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""As Linux numbers them in asm-generic/socket.h; Python does not name them."""
DROP_SYN = [
    (0x30, 0, 0, 13),  # load the byte of flags of the TCP header
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 1, 0x02),  # if it is SYN alone,
    (0x06, 0, 0, 0),  # drop the packet,
    (0x06, 0, 0, 0xFFFFFFFF),  # else pass it on
]
"""Code, jump if true, jump if false, operand: McCanne and Jacobson, "The BSD Packet Filter", USENIX 1993, table 1."""

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's, which accepts by itself.

    uvloop accepts one connection in each round of its loop (libuv/libuv#3696). A round with hundreds of busy clients
    takes a tenth of a second and more, so whoever connected then, probes among them, waited until they had left.

    The kernel accepts connections before the process does, and resets those that still wait when their listener is
    closed. uvicorn closes it while more are coming.
    """

    _in_vain = False
    _last = True
    """Whether nobody listens afterwards. On SIGINT another worker does, and has what waits."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._opening: set[asyncio.Task[Any]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._last = sig == signal.SIGTERM
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen and say where, or that it cannot be: another server may have bound the port and listened first."""
        await super().startup([])
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            with suppress(OSError):  # one that stopped may have left it to whoever listens on the same socket next
                listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            try:
                listener.listen(self.config.backlog)
            except OSError as error:
                logger.error("cannot listen on %s:%d: %s", host, port, error.strerror)
                self.should_exit = self._in_vain = True
                return
            listener.setblocking(False)
            self._watch(listener)
            logger.info("listens on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    def _watch(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:  # it may have been closed meanwhile
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take all connections that wait."""
        loop = asyncio.get_running_loop()
        for _ in range(self.config.backlog):
            try:
                client, _address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left, for example; those that wait go on waiting
                logger.error("a connection is not accepted: %s", error.strerror)
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_AGAIN_SECONDS, self._watch, listener)
                return
            self._open(client)

    def _open(self, client: socket.socket) -> None:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.connect_accepted_socket(self._connection, client))
        self._opening.add(opening)  # or it might be collected
        opening.add_done_callback(partial(self._opened, client))

    def _opened(self, client: socket.socket, opening: "asyncio.Task[Any]") -> None:
        self._opening.discard(opening)
        try:
            opening.result()
        except (OSError, asyncio.CancelledError):  # the client has gone already
            client.close()
        except Exception:
            client.close()
            logger.exception("a connection was not opened")

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets)
        if self._in_vain:
            sys.exit(STARTUP_FAILURE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no further connection, accept those that are being opened, and stop as uvicorn does."""
        if self._last and sys.platform == "linux":
            with suppress(OSError):  # a kernel without filters: whoever connects in this moment is reset
                for listener in sockets or []:
                    _refuse_to_open(listener)
                await asyncio.sleep(OPENING_SECONDS)
        for listener in sockets or []:
            self._accept(listener)
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        if self._opening:
            await asyncio.wait(self._opening)
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _refuse_to_open(listener: socket.socket) -> None:
    """Let the kernel drop what would open a connection, and finish those that are being opened. Clients try again a
    second later, and are refused by then.

    Raises:
        OSError: if the kernel takes no filter.
    """
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in DROP_SYN))
    program = struct.pack("@HP", len(DROP_SYN), ctypes.addressof(instructions))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
