import time

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

from service.deadline import DeadlineMiddleware
from service.errors import DeadlineExceeded, InvalidValue
from service.telemetry import Metrics, TelemetryMiddleware


async def never(scope, receive, send):
    await anyio.sleep(60)


async def tell(scope, receive, send):
    """How many seconds are left."""
    left = scope["state"]["clock"].deadline - time.monotonic()
    await PlainTextResponse(str(left))(scope, receive, send)


def ask(app, header=None, **seconds):
    headers = {} if header is None else {"X-Deadline-Ms": header}
    app = DeadlineMiddleware(app, **{"seconds": 30, "send_seconds": 5, **seconds})
    return TestClient(app).get("/", headers=headers)


def test_what_begins_too_late_is_given_up():
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 seconds"):
        ask(never, seconds=0.05)


def test_a_client_may_want_it_sooner():
    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 seconds"):
        ask(never, "50")
    assert 4 < float(ask(tell, "5000").text) <= 5


@pytest.mark.parametrize("header", ["60000", "9" * 19, "9" * 200])
def test_and_never_later(header):
    assert 29 < float(ask(tell, header).text) <= 30
    assert 29 < float(ask(tell).text) <= 30


@pytest.mark.parametrize("header", ["0", "-1", "1.5", "1e3", "", " ", "soon", "0x10", "²", "1_000", "1 000"])
def test_says_what_is_no_deadline(header):
    with pytest.raises(InvalidValue, match="send whole milliseconds, 1 or more"):
        ask(tell, header.encode())


def test_a_result_is_due_sooner_where_the_loop_lags():
    async def lag(scope, receive, send):
        clock = scope["state"]["clock"]
        lags.append(clock.deadline - clock.result_due)

    async def wait(scope, receive, send):
        await ended.wait()

    async def ask(app, milliseconds=b"30000"):
        middleware.app = app
        await middleware({"type": "http", "headers": [(b"x-deadline-ms", milliseconds)], "state": {}}, None, None)

    async def call():
        await ask(lag)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, wait)
            await anyio.sleep(0)
            time.sleep(0.5)  # so long takes what comes from a thousand clients at once
            await anyio.sleep(0.001)
            await ask(lag)
            await ask(lag, b"100")
            ended.set()
        await anyio.sleep(0.1)
        await ask(lag)

    lags, ended = [], anyio.Event()
    middleware = DeadlineMiddleware(lag, seconds=30, send_seconds=5)
    anyio.run(call)
    none, all_of_it, half_of_the_time, none_again = lags
    assert none == none_again == 0  # an idle loop has none
    assert all_of_it > 0.2
    assert half_of_the_time == pytest.approx(0.05)


@given(st.binary(max_size=30))
def test_any_header_is_a_deadline_or_a_mistake(header):
    async def pass_by(scope, receive, send):
        pass

    async def call():
        scope = {"type": "http", "headers": [(b"x-deadline-ms", header)], "state": {}}
        await DeadlineMiddleware(pass_by, seconds=1, send_seconds=1)(scope, None, None)

    try:
        anyio.run(call)
    except InvalidValue:
        assert not (header.strip(b" \t").isdigit() and int(header) > 0)
    else:
        assert header.strip(b" \t").isdigit()


def test_what_has_begun_may_take_its_time():
    async def chunks():
        for _ in range(3):
            yield b"x"
            await anyio.sleep(0.1)

    async def stream(scope, receive, send):
        await StreamingResponse(chunks())(scope, receive, scope["state"]["clock"].watch(send))

    assert ask(stream, seconds=0.15).content == b"xxx"


def test_what_has_begun_without_being_watched_is_not_cut_off():
    async def slow_page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep(0.2)
        await send({"type": "http.response.body", "body": b"page"})

    app = TelemetryMiddleware(DeadlineMiddleware(slow_page, seconds=0.05, send_seconds=5), Metrics())
    assert TestClient(app).get("/").content == b"page"


def test_a_client_that_stops_taking_what_has_begun_is_let_go():
    sent = []

    async def forever():
        while True:
            yield b"x"

    async def stream(scope, receive, send):
        await StreamingResponse(forever())(scope, receive, scope["state"]["clock"].watch(send))

    async def send(message):
        sent.append(message["type"])
        if len(sent) == 3:
            await anyio.sleep(60)

    async def receive():
        await anyio.sleep(60)

    async def call():
        scope = {"type": "http", "headers": [], "asgi": {"spec_version": "2.3"}, "state": {}}
        await DeadlineMiddleware(stream, seconds=30, send_seconds=0.05)(scope, receive, send)

    with pytest.raises(ClientDisconnect):
        anyio.run(call)
    assert sent == ["http.response.start", "http.response.body", "http.response.body"]


def test_its_place_is_given_back_and_its_answer_never_ends_well(plain, listen, eventually, caplog):
    with listen(max_streams=1, send_seconds=1) as server:
        with server.ask("/sample", {"seed": 0, "count": 100_000, "format": "tar"}) as connection:
            head = connection.recv(12)
            assert head == b"HTTP/1.1 200"
            assert server.client.post("/sample", json={"count": 1}).status_code == 429
            eventually(lambda: server.client.post("/sample", json={"count": 1}).status_code == 200)
            rest = b"".join(iter(lambda: connection.recv(2**20), b""))
            assert len(rest) < 50_000_000
            assert not rest.endswith(b"0\r\n\r\n")
        assert server.waiting == 0
    assert "Traceback" not in caplog.text
