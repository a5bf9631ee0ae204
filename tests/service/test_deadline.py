import anyio
import pytest
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from service.deadline import DeadlineMiddleware
from service.errors import DeadlineExceeded


def test_what_begins_too_late_is_given_up():
    async def slow(scope, receive, send):
        await anyio.sleep(60)

    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 seconds"):
        TestClient(DeadlineMiddleware(slow, seconds=0.05, send_seconds=5)).get("/")


def test_what_has_begun_may_take_its_time():
    async def chunks():
        for _ in range(3):
            yield b"x"
            await anyio.sleep(0.1)

    async def stream(scope, receive, send):
        await StreamingResponse(chunks())(scope, receive, send)

    assert TestClient(DeadlineMiddleware(stream, seconds=0.15, send_seconds=5)).get("/").content == b"xxx"
