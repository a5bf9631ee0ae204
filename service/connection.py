"""One client's connection: uvicorn's protocol, with bounds on what precedes a request and on what follows an answer.

uvicorn takes a head of any length at any pace, trailers without end and as many pipelined requests as can be sent, all
of it into memory. It loses the body of a request that offers to speak HTTP/2 instead (Kludex/uvicorn#2722), which every
Java client does. And it resets connections on which a request is under way while it stops.
"""

import asyncio
import json
import secrets
import socket
from asyncio import TimerHandle
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import httptools
from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    Scope,
)
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.errors import GaneryError, HeadTooLarge, MalformedRequest
from service.problems import MEDIA_TYPE, Cut

HEAD_BYTES = 64 * 1024
"""Most bytes of a request's line and headers, give or take one read."""
HEAD_SECONDS = 10.0
"""In which a head must come whole; the same for the rest of a body that nobody waits for any more."""
PIPELINED = 16
"""Most requests that wait on one connection for the answer to an earlier one."""
UNSENT_BYTES = 128 * 1024
"""That the kernel holds for a client beside what is on its way, before the next part of an answer has to wait."""
UNUSUAL = frozenset({b"connection", b"transfer-encoding"})
"""Headers with which an answer changes what becomes of its connection."""
LAST_SECONDS = 1.0
"""While the server stops: in which a request that was under way may still arrive on a connection that was idle."""


class Answering:
    """The application, with a `send` that holds an answer's head until its body comes. Most answers are whole then, and
    leave in one piece: one call of the system, and one wake-up of the client. The others leave as uvicorn has it.
    """

    def __init__(self, app: ASGI3Application, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle
        self._head: HTTPResponseStartEvent | None = None

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
        try:
            await self._app(scope, receive, self.send)
        except Cut:
            self._cycle.disconnected = True  # or uvicorn would log it once more
            self._cycle.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and self._head is None:
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            if message["type"] == "http.response.body" and self._send_whole(head, message):
                return
            await self._cycle.send(head)
        await self._cycle.send(message)

    def _send_whole(self, head: HTTPResponseStartEvent, message: HTTPResponseBodyEvent) -> bool:
        """Send it if nothing about it is out of the ordinary."""
        cycle = self._cycle
        body, headers = message.get("body", b""), list(head.get("headers", ()))
        names, values = zip(*headers, strict=True) if headers else ((), ())
        ordinary = (
            not message.get("more_body", False)
            and cycle.keep_alive
            and not (cycle.disconnected or cycle.response_started or cycle.flow.write_paused)
            and cycle.scope["method"] != "HEAD"
            and (b"content-length", b"%d" % len(body)) in headers
            and not UNUSUAL.intersection(names)
            and not HEADER_RE.search(b"".join(names))
            and not HEADER_VALUE_RE.search(b"".join(values))
        )
        if ordinary:
            lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
            cycle.transport.write(b"".join((STATUS_LINE[head["status"]], *lines, b"\r\n", body)))
            cycle.response_started = cycle.response_complete = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            cycle.on_response()
        return ordinary


class Connection(HttpToolsProtocol):
    """Counts and times what uvicorn does not, and answers what it cannot read with a problem document."""

    unread_seconds: ClassVar[float] = 30.0
    """After which the kernel drops a connection whose client acknowledges nothing of what was sent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._overdue: TimerHandle | None = None
        self._stopping = False
        self._completed = False
        self._running: RequestResponseCycle | None = None
        self._gone = False
        self._when_gone: tuple[object, Callable[[], object]] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        set_option = partial(transport.get_extra_info("socket").setsockopt, socket.IPPROTO_TCP)
        # Closing waits until all is sent, which is never if the client does not read. Only the kernel sees that.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            set_option(socket.TCP_USER_TIMEOUT, round(self.unread_seconds * 1000))
        # The kernel would take megabytes, and then none until a third of them is read: from a client that reads slowly
        # but all the time, that looks as if it had stopped.
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            set_option(socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._overdue = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._in_time()
        self._gone = True
        # uvicorn tells the latest request; the one that is being answered may be an earlier one.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        if self._when_gone is not None:
            _request, call = self._when_gone
            call()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._completed = False
        head = self.headers if self._in_head else None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._pass_over(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            # What a callback below has raised says more than the parser.
            cause = error.__context__
            self._refuse(cause if isinstance(cause, GaneryError) else MalformedRequest(f"this is not HTTP: {error}"))
            return
        if self._in_head and head is self.headers:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HeadTooLarge(f"the request's line and headers are longer than {HEAD_BYTES} bytes"))
        if self._overdue is None and self._idle:
            if self._completed:  # what was answered early has now come whole
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
            else:
                self._overdue = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._completed = False
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is no header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_time()
        if self.parser.should_upgrade():
            return  # not yet: it is parsed once more, without the offer
        if len(self.pipeline) >= PIPELINED:
            raise MalformedRequest(f"more than {PIPELINED} requests wait on this connection; open another")
        hosts = [name for name, _value in self.headers].count(b"host")
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise MalformedRequest(f"the request has {hosts} headers Host; it must have one (RFC 9112, section 3.2)")
        self.scope["state"]["when_gone"] = partial(self._set_when_gone, object())
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, Answering(app, cycle))

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._completed = True
            self._in_time()
            super().on_message_complete()

    def shutdown(self) -> None:
        """The server stops. Each connection ends with an answer, which says so; one that is idle, after a moment."""
        self._stopping = True
        if self._idle:
            self._unset_keepalive_if_required()
            self.loop.call_later(LAST_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _set_when_gone(self, request: object, call: Callable[[], object] | None) -> None:
        """See `presence.WhenGone`. The next request on this connection may have begun before this one is through."""
        if call is not None:
            self._when_gone = request, call
        elif self._when_gone is not None and self._when_gone[0] is request:
            self._when_gone = None
        if call is not None and self._gone:
            self.loop.call_soon(call)
        elif call is not None:
            self.flow.resume_reading()  # after a large body it may rest, and an end that is not read is not seen

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._idle:
            self.transport.close()

    def _in_time(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _pass_over(self, rest: bytes) -> None:
        """The client offers another protocol. A server may go on as if it had not (RFC 9110, section 7.8)."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(MalformedRequest("CONNECT is for proxies; this is none"))
            return
        lines = [b"%b %b HTTP/1.1" % (method, self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _refuse(self, error: GaneryError) -> None:
        self.logger.warning("a connection is closed: %s", error.detail)
        # In the middle of another answer, a second one would be taken for a part of it.
        if not self.pipeline and (self._idle or not self.cycle.response_started):
            request_id = secrets.token_hex(8)
            body = json.dumps({**error.problem(), "request_id": request_id})
            lines = [
                f"HTTP/1.1 {int(error.status)} {error.status.phrase}",
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                f"x-request-id: {request_id}",
                "connection: close",
            ]
            self.transport.write("\r\n".join([*lines, "", body]).encode("ascii"))
        self.transport.close()
