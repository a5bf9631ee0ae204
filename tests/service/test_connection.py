"""Raw bytes against uvicorn with our protocol, around an application that only echoes. No bundles, no processes."""

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service import connection
from service.connection import HEAD_BYTES, PIPELINED, UNSENT_BYTES, Answering, Connection

PATIENCE = 60  # seconds; a busy machine is no failure
FLOOD = 16 * 2**20  # bytes: far more than a socket's buffers hold

Talk = Callable[..., bytes]


departures: SimpleQueue[int] = SimpleQueue()
lingered: SimpleQueue[None] = SimpleQueue()


async def echo(scope, receive, send):
    if scope["path"] == "/block":
        time.sleep(1)
    if scope["path"] == "/early":  # answers before it has read
        body, more = b"", False
    else:
        body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if scope["path"] == "/wait" and more:
            time.sleep(0.4)  # so that the rest comes in one piece
    if scope["path"] == "/late":  # looks for the client when it has gone already
        await asyncio.sleep(0.5)
    if scope["path"] in {"/wait", "/late"}:  # until the client has gone
        gone = asyncio.Event()
        scope["state"]["when_gone"](gone.set)
        await asyncio.wait_for(gone.wait(), PATIENCE)
        departures.put(len(body))
        return
    if scope["path"] == "/endless":  # what is sent to a client that has gone is nobody's, and no failure
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000000")]})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
            await asyncio.sleep(0.05)
        departures.put(0)
        return
    names = b",".join(name for name, _ in scope["headers"] if name.startswith(b"x-"))
    headers = [(b"content-length", str(len(body)).encode()), (b"x-names", names)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    if scope["path"] == "/lingers":
        scope["state"]["when_gone"](departures.put)
        await asyncio.sleep(0.3)
        scope["state"]["when_gone"](None)
        lingered.put(None)


@pytest.fixture
def server() -> Iterator[uvicorn.Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(echo, http=Connection, ws="none", lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    address = listener.getsockname()
    thread.start()
    while not server.started:
        time.sleep(0.01)
    server.address = address
    yield server
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.fixture
def connect(server: uvicorn.Server) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(server.address, timeout=PATIENCE)


def until_closed(client: socket.socket) -> bytes:
    received = b""
    try:
        while more := client.recv(65536):
            received += more
    except ConnectionResetError:
        pass
    return received


def flood(client: socket.socket, endless: bytes, *, pause: float = 0) -> int:
    """Bytes sent until the server wanted no more; `FLOOD` if it never had enough."""
    sent = 0
    deadline = time.monotonic() + PATIENCE
    try:
        while sent < FLOOD and time.monotonic() < deadline:
            sent += client.send(endless)
            time.sleep(pause)
    except ConnectionError:
        return sent
    return FLOOD


@pytest.fixture
def talk(connect: Callable[[], socket.socket]) -> Talk:
    """What comes back until the server closes, after pieces have been sent one by one."""

    def send(*pieces: bytes) -> bytes:
        with connect() as client:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.02)  # so that each is read on its own
            return until_closed(client)

    return send


def post(body: bytes, *headers: bytes, path: bytes = b"/") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"POST %b HTTP/1.1" % path, b"Host: x", length, *headers, b"", body])


LAST = b"Connection: close"


@pytest.mark.parametrize("at", [1, 60, -3])
def test_requests_come_in_any_pieces(talk, at):
    ask = post(b"body", LAST)
    assert talk(ask[:at], ask[at:]).endswith(b"\r\n\r\nbody")
    assert talk(b"\r\n\r\n", ask).endswith(b"\r\n\r\nbody")


def test_one_connection_takes_request_after_request(talk):
    assert talk(post(b"one"), post(b"two") + post(b"three", LAST)).count(b" 200 OK") == 3


@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_to_speak_http2_is_passed_over(talk, chunked):
    offer = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"]
    ask = post(b"body", *offer, b"X-Mine: 1")
    if chunked:
        head = post(b"", *offer, b"X-Mine: 1").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        ask = head + b"4\r\nbody\r\n0\r\n\r\n"
    for pieces in ([ask], [ask[:-6], ask[-6:]], [ask[:40], ask[40:]]):
        answer = talk(*pieces, post(b"next", LAST))
        assert answer.count(b"x-names: x-mine\r\n\r\nbody") == 1
        assert answer.endswith(b"next")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}XX",
    ],
)
def test_what_is_not_http_is_a_problem(talk, nonsense):
    head, _, body = talk(nonsense).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n")
    assert b"urn:ganery:problem:malformed-request" in body


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 65536),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10000),
        (b"GET /", b"a" * 65536),
        (b"", b"GET / HTTP/1.1\r\n\r\n" * 1000),
    ],
)
def test_what_has_no_end_is_cut(connect, beginning, endless):
    with connect() as client:
        client.sendall(beginning)
        assert flood(client, endless) < FLOOD


@pytest.mark.parametrize("beginning", [b"GET / HTTP/1.1\r\nX: ", b"GET /"])
def test_too_long_a_head_is_told_so(talk, beginning):
    half = b"a" * (HEAD_BYTES // 2)
    answer = talk(beginning, half, half, b"a")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"urn:ganery:problem:head-too-large" in answer


def test_a_head_may_be_long(talk):
    ask = post(b"body", LAST, b"X-Long: " + b"a" * (HEAD_BYTES // 2))
    assert talk(ask[:1000], ask[1000:]).endswith(b"body")


def test_trailers_are_no_headers(talk):
    head = post(b"", LAST).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    answer = talk(head, b"4\r\nbody\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert answer.endswith(b"body")
    assert b"x-trailer" not in answer


def test_many_requests_may_wait_but_not_too_many(talk):
    assert talk(post(b"") * PIPELINED + post(b"", LAST)).count(b" 200 OK") == PIPELINED + 1
    assert talk(post(b"") * (PIPELINED + 2)).count(b" 200 OK") <= 1


@pytest.mark.parametrize(
    "pieces",
    [[b""], [b"\r\n"], [b"GET / HT"], [b"GET / HTTP/1.1\r\nX: y\r\n"], [post(b""), b"GET /"], [post(b""), b"\r\n"]],
)
def test_a_head_must_come_in_time(monkeypatch, talk, pieces):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    began = time.monotonic()
    assert talk(*pieces).count(b" 200 OK") == len(pieces) - 1
    assert time.monotonic() - began < PATIENCE / 2  # the keep-alive timeout alone would take all of it


def test_a_head_that_came_while_the_server_was_busy_came_in_time(monkeypatch, connect):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with connect() as busy, connect() as other:
        time.sleep(0.1)  # both have been accepted
        busy.sendall(post(b"", LAST, path=b"/block"))
        time.sleep(0.05)
        other.sendall(post(b"body", LAST))
        assert until_closed(other).endswith(b"body")


def test_a_body_that_nobody_waits_for_does_not_go_on_for_ever(monkeypatch, connect):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with connect() as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert flood(client, b"a", pause=0.01) < FLOOD


def test_who_reads_nothing_is_dropped_by_the_kernel(monkeypatch, server):
    monkeypatch.setattr(Connection, "unread_seconds", 0.5)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.settimeout(PATIENCE)
        client.connect(server.address)
        client.sendall(post(b"a" * FLOOD, LAST))
        deadline = time.monotonic() + PATIENCE
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.server_state.connections


def test_little_waits_in_the_kernel_for_who_reads_slowly(server):
    """Megabytes of it would have to be read before the next part could be sent, whose time is limited."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.settimeout(PATIENCE)
        client.connect(server.address)
        client.sendall(post(b"a" * FLOOD))
        assert client.recv(100)
        time.sleep(0.5)  # whatever the kernel takes it has taken
        (protocol,) = server.server_state.connections
        descriptor = protocol.transport.get_extra_info("socket").fileno()
        held = int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        assert held < 4 * UNSENT_BYTES
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_while_it_stops_a_request_that_is_under_way_is_answered(connect, server):
    with connect() as used, connect() as unused, connect() as forgotten:
        used.sendall(post(b"first"))
        while not used.recv(65536).endswith(b"first"):
            pass
        server.should_exit = True
        time.sleep(0.3)  # it has stopped listening
        for client in (used, unused):
            client.sendall(post(b"second"))
            answer = until_closed(client)
            assert answer.endswith(b"second")
            assert b"connection: close" in answer
        assert until_closed(forgotten) == b""


def test_it_is_told_too_if_the_client_has_gone_before_anybody_asks(connect):
    with connect() as client:
        client.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.1)
    assert departures.get(timeout=PATIENCE) == 0


def test_who_leaves_with_a_request_that_waits_harms_nobody(connect, caplog):
    with connect() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(100)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves at once
    departures.get(timeout=PATIENCE)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_end_of_one_request_does_not_leave_the_next_without_a_word(connect):
    """uvicorn begins the next when an answer is sent, which is before what has sent it is through."""
    with connect() as client:
        client.sendall(b"GET /lingers HTTP/1.1\r\nHost: x\r\n\r\nGET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert lingered.get(timeout=PATIENCE) is None
    assert departures.get(timeout=PATIENCE) == 0


def test_what_was_answered_early_keeps_its_connection(monkeypatch, connect):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    with connect() as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(b"12345")
        time.sleep(0.6)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [1, 60_000, 100_000])
def test_it_is_told_when_a_client_has_gone_whatever_it_has_sent(connect, size):
    with connect() as client:
        ask = post(b"x" * size, path=b"/wait")
        for part in (ask[:80], ask[80:]):
            client.sendall(part)
            time.sleep(0.2)
        assert departures.empty()
    assert departures.get(timeout=PATIENCE) == size


class Recorder(asyncio.Transport):
    """Keeps what is written, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def close(self) -> None:
        self.pieces.append(b"(closed)")


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, object]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, *, more: bool = False) -> dict[str, object]:
    return {"type": "http.response.body", "body": content, "more_body": more}


FOUR = (b"content-length", b"4")
ANSWERS = {
    "whole": [start(FOUR, (b"x-seed", b"7")), body(b"data")],
    "whole problem": [start(FOUR, status=404), body(b"data")],
    "empty": [start((b"content-length", b"0")), body(b"")],
    "none": [start(status=304), body(b"")],
    "in two pieces": [start(FOUR), body(b"da", more=True), body(b"ta")],
    "of unknown length": [start(), body(b"da", more=True), body(b"ta")],
    "of one piece of unknown length": [start(), body(b"data")],
    "the last": [start(FOUR, (b"connection", b"close")), body(b"data")],
    "chunked": [start((b"transfer-encoding", b"chunked")), body(b"data")],
    "too long": [start(FOUR), body(b"data and more")],
    "too short": [start(FOUR), body(b"da")],
    "with a header that would be two": [start(FOUR, (b"x-name", b"a\r\nx-other: b")), body(b"data")],
    "with a header of a strange name": [start(FOUR, (b"x name", b"a")), body(b"data")],
    "without a head": [body(b"data")],
    "with two heads": [start(FOUR), start(FOUR)],
    "twice": [start(FOUR), body(b"data"), start(FOUR), body(b"data")],
}


async def answered(messages, wrap, *, method: str = "GET", keep_alive: bool = True) -> tuple[list[bytes], str, bool]:
    """What is written for an answer, what is raised, and whether the next request may come."""
    recorder, done = Recorder(), []
    quiet = logging.getLogger("quiet")
    cycle = RequestResponseCycle(
        scope={"type": "http", "method": method, "headers": []},
        transport=recorder,
        flow=FlowControl(recorder),
        logger=quiet,
        access_logger=quiet,
        access_log=False,
        default_headers=[(b"date", b"today")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: done.append(True),
    )
    error = ""

    async def app(scope, receive, send):
        nonlocal error
        try:
            for message in messages:
                await send(message)
        except RuntimeError as raised:
            error = str(raised)

    await wrap(app, cycle)(cycle.scope, cycle.receive, cycle.send)
    return recorder.pieces, error, cycle.response_complete and bool(done)


@pytest.mark.anyio
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("messages", ANSWERS.values(), ids=ANSWERS)
async def test_every_answer_is_the_bytes_that_uvicorn_sends(messages, method, keep_alive):
    pieces, *ours = await answered(messages, Answering, method=method, keep_alive=keep_alive)
    expected, *its = await answered(messages, lambda app, cycle: app, method=method, keep_alive=keep_alive)
    assert (b"".join(pieces), ours) == (b"".join(expected), its)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["whole", "whole problem", "empty"])
async def test_a_whole_answer_leaves_in_one_piece(name):
    pieces, error, complete = await answered(ANSWERS[name], Answering)
    assert (len(pieces), error, complete) == (1, "", True)
