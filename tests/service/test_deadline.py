import time

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from service.deadline import BodyDeadlineMiddleware, DeadlineMiddleware
from service.errors import DeadlineExceeded, RequestTimeout
from service.parsing import read_body


def test_what_begins_too_late_is_given_up():
    async def slow(scope, receive, send):
        await anyio.sleep(60)

    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 seconds"):
        TestClient(DeadlineMiddleware(slow, seconds=0.05)).get("/")


def test_what_has_begun_may_take_its_time():
    async def chunks():
        for _ in range(3):
            yield b"x"
            await anyio.sleep(0.1)

    async def stream(scope, receive, send):
        await StreamingResponse(chunks())(scope, receive, send)

    assert TestClient(DeadlineMiddleware(stream, seconds=0.15)).get("/").content == b"xxx"


def body(*chunks, pause=0.0, ends=True):
    """`receive` for a body that comes in pieces."""
    left = list(chunks)

    async def receive():
        if not left and not ends:
            await anyio.sleep(60)
        await anyio.sleep(pause)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or not ends}

    return receive


async def read_all(scope, receive, send):
    await read_body(Request(scope, receive), 1000)


def read_in_time(receive, app=read_all):
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    sent = []

    async def send(message):
        sent.append(message)

    anyio.run(BodyDeadlineMiddleware(app, seconds=0.2), scope, receive, send)
    return sent


@pytest.mark.parametrize(
    "slow",
    [body(ends=False), body(b"begun", ends=False), body(*[b"x"] * 100, pause=0.05), body(b"late", pause=60)],
    ids=["nothing", "stalled", "trickling", "late"],
)
def test_a_body_that_comes_too_slowly_is_given_up(slow):
    began = time.monotonic()
    with pytest.raises(RequestTimeout, match=r"has not come within 0\.2 seconds"):
        read_in_time(slow)
    assert time.monotonic() - began < 2


def test_a_body_that_comes_in_time_is_read():
    read_in_time(body(*[b"x"] * 5, pause=0.01))
    assert RequestTimeout("late").headers == {"Connection": "close"}


@pytest.mark.parametrize("unread", [body(ends=False), body(b"")])
def test_an_answer_that_has_begun_waits_for_no_body(unread):
    """Starlette listens for a client that leaves while an answer is streamed."""

    async def stream(scope, receive, send):
        async def chunks():
            yield b"x"
            await anyio.sleep(0.4)
            yield b"y"

        async def listen():
            await receive()
            await anyio.sleep(60)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(StreamingResponse(chunks()), scope, never, send)
            await anyio.sleep(0.05)
            tasks.start_soon(listen)
            await anyio.sleep(0.5)
            tasks.cancel_scope.cancel()

    async def never():
        await anyio.sleep(60)

    assert [message.get("body") for message in read_in_time(unread, stream)] == [None, b"x", b"y", b""]


def test_what_comes_after_the_body_may_take_its_time():
    async def wait(scope, receive, send):
        await receive()
        with anyio.move_on_after(0.4) as patience:
            await receive()
        assert patience.cancelled_caught

    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        return await anyio.sleep(60)

    read_in_time(receive, wait)
