"""How the worker begins and stops to listen."""

import asyncio
import errno
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Thread, Timer

import pytest
import uvicorn
import uvloop

from service.listening import Server, _refuse_to_open

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CLIENTS = 16


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def ask_until_refused(address: tuple[str, int]) -> set[str]:
    """Each time on a connection of its own."""
    ends = set()
    while True:
        try:
            connection = socket.create_connection(address)
        except (ConnectionRefusedError, ConnectionResetError):  # while it is opened: nothing has been asked on it
            return ends
        with connection:
            try:
                connection.sendall(REQUEST)
                ends.add(connection.recv(1000)[9:12].decode())
            except OSError as error:
                ends.add(type(error).__name__)


@pytest.mark.skipif(sys.platform != "linux", reason="it is the kernel that takes no more connections")
def test_whoever_was_connected_when_it_stopped_is_answered():
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.setblocking(False)
    server = Server(uvicorn.Config(answer, lifespan="off", log_config=None, access_log=False))
    running = Thread(target=server.run, args=([listener],))
    with ThreadPoolExecutor(CLIENTS) as threads:
        address = listener.getsockname()
        clients = [threads.submit(ask_until_refused, address) for _ in range(CLIENTS)]
        running.start()
        Timer(0.5, server.handle_exit, (signal.SIGTERM, None)).start()
        running.join()
    assert set.union(*(client.result() for client in clients)) == {"200"}


@contextmanager
def connecting(address, count):
    with ExitStack() as clients:
        yield [clients.enter_context(socket.create_connection(address)) for _ in range(count)]


async def begun(listener):
    config = uvicorn.Config(answer, lifespan="off", log_config=None, access_log=False)
    config.load()
    server = Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    return server


def test_whoever_waits_is_accepted_in_one_round():
    """A round in which hundreds of clients are answered takes so long that one for each is too few."""

    async def serve():
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        server = await begun(listener)
        with connecting(listener.getsockname(), 50):
            for _ in range(10):  # a few: it sees them, opens them, tells their protocols
                await asyncio.sleep(0)
            assert len(server.server_state.connections) == 50
        await server.shutdown([listener])

    uvloop.run(serve())


class Exhausted(socket.socket):
    """A listener without a descriptor left for a client, once."""

    failures = 1

    def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_whoever_cannot_be_accepted_is_later(monkeypatch, caplog):
    monkeypatch.setattr("service.listening.ACCEPT_AGAIN_SECONDS", 0.05)

    async def serve():
        listener = Exhausted()
        listener.bind(("127.0.0.1", 0))
        server = await begun(listener)
        with connecting(listener.getsockname(), 3):
            while len(server.server_state.connections) < 3:
                await asyncio.sleep(0.01)
        await server.shutdown([listener])

    uvloop.run(asyncio.wait_for(serve(), 30))
    assert caplog.text.count("a connection is not accepted: Too many open files") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="it is the kernel that takes no more connections")
def test_a_socket_on_which_another_has_stopped_is_heard_again():
    """A worker that is stopped alone is replaced, and the other one listens on the same socket."""

    async def serve():
        listener = socket.create_server(("127.0.0.1", 0))
        _refuse_to_open(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.3)
        server = await begun(listener)
        with connecting(listener.getsockname(), 1):
            while not server.server_state.connections:
                await asyncio.sleep(0.01)
        await server.shutdown([listener])

    uvloop.run(asyncio.wait_for(serve(), 30))


def test_of_two_that_have_bound_one_port_the_second_to_listen_ends():
    one, other = (socket.socket() for _ in range(2))
    with one, other:
        for listener in (one, other):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(one.getsockname() if listener is other else ("127.0.0.1", 0))
        one.listen()
        server = Server(uvicorn.Config(answer, lifespan="off", log_config=None, access_log=False))
        with pytest.raises(SystemExit):
            server.run([other])
