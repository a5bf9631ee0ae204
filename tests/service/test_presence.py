import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from service.presence import while_connected

pytestmark = pytest.mark.anyio


class Client:
    """Sends its body's rest, and leaves when told to."""

    def __init__(self):
        self.left = asyncio.Event()
        self.messages = [{"type": "http.request", "body": b"", "more_body": False}]
        self.request = Request({"type": "http", "headers": [], "state": {}}, self.receive)

    def tells(self, call):
        """What a server offers that says by itself when a client has gone."""
        self.call = call

    async def receive(self):
        if self.messages:
            return self.messages.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_gives_the_result_of_whoever_stays():
    async def soon():
        return 1

    async def late():
        await asyncio.sleep(0.1)
        return 2

    client = Client()
    assert await while_connected(client.request, soon()) == 1
    assert client.messages  # nobody looked after a client that had no time to leave
    assert await while_connected(client.request, late()) == 2


async def test_raises_what_is_raised():
    async def fail():
        await asyncio.sleep(0.1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await while_connected(Client().request, fail())


async def test_gives_up_what_nobody_waits_for():
    client, future = Client(), asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(while_connected(client.request, future))
    await asyncio.sleep(0.1)
    assert not future.done()
    client.left.set()
    with pytest.raises(ClientDisconnect):
        await waiting
    assert future.cancelled()


@pytest.mark.parametrize("seconds", [0, 0.1])
async def test_gives_up_when_it_is_cancelled_itself(seconds):
    client, future = Client(), asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(while_connected(client.request, future))
    await asyncio.sleep(seconds)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert future.cancelled()
    assert [task for task in asyncio.all_tasks() if "_leaves" in repr(task)] == []


async def test_a_result_that_comes_as_the_client_leaves_is_a_result():
    client, future = Client(), asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(while_connected(client.request, future))
    await asyncio.sleep(0.1)
    client.left.set()
    future.set_result(3)
    assert await waiting == 3


async def test_a_server_that_tells_is_not_asked():
    client, future = Client(), asyncio.get_running_loop().create_future()
    client.request.scope["state"]["when_gone"] = client.tells
    waiting = asyncio.ensure_future(while_connected(client.request, future))
    await asyncio.sleep(0.1)
    client.call()
    with pytest.raises(ClientDisconnect):
        await waiting
    assert future.cancelled()
    assert client.messages
    assert client.call is None
