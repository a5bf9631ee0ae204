import time

import anyio
import pytest
from starlette.requests import Request

from service.deadline import Clock, DeadlineMiddleware
from service.errors import InvalidValue, MalformedRequest, RequestTimeout, TooLarge, UnsupportedMediaType
from service.parsing import parse, read_body
from service.schemas import GenerateRequest, InterpolateRequest, SampleRequest

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


def request(*chunks, headers=JSON):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive():
        return messages.pop(0)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    state = {"clock": Clock({}, 60)}
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw, "state": state}, receive)


async def test_reads_in_pieces():
    ask = await parse(request(b'{"seed"', b': 7, "class": "two"}'), GenerateRequest, max_bytes=100, seconds=5)
    assert (ask.seed, ask.class_, ask.truncation) == (7, "two", 1)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_takes_json_with_parameters(content_type):
    await parse(request(b"{}", headers={"content-type": content_type}), GenerateRequest, max_bytes=100, seconds=5)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data"},
        {"content-type": "application/vnd.bentoml+pickle"},
        {**JSON, "content-encoding": "gzip"},
    ],
)
async def test_takes_nothing_else(headers):
    with pytest.raises(UnsupportedMediaType, match="send"):
        await parse(request(b"{}", headers=headers), GenerateRequest, max_bytes=100, seconds=5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"{'seed': 1}",
        b'{"truncation": NaN}',
        b'{"truncation": Infinity}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b'{"seed": ' + b"9" * 100_000 + b"}",
    ],
)
async def test_what_is_not_json_is_malformed(body):
    with pytest.raises(MalformedRequest, match="not JSON"):
        await parse(request(body), GenerateRequest, max_bytes=10**6, seconds=5)


async def test_members_are_compared_in_no_time():
    names = [f"m{index}" for index in range(100_000)]
    body = "{" + ",".join(f'"{name}":0' for name in [*names, names[-1]]) + "}"
    began = time.process_time()
    with pytest.raises(InvalidValue, match='"m99999" comes twice'):
        await parse(request(body.encode()), GenerateRequest, max_bytes=10**7, seconds=5)
    assert time.process_time() - began < 10  # each with each would take minutes


async def test_counts_bytes_whatever_was_announced():
    await parse(request(b"{}" + b" " * 98), GenerateRequest, max_bytes=100, seconds=5)
    with pytest.raises(TooLarge, match="larger than 100 bytes; send less"):
        await parse(request(b"{}", b" " * 99), GenerateRequest, max_bytes=100, seconds=5)
    with pytest.raises(TooLarge):
        await parse(request(headers={**JSON, "content-length": "9" * 100}), GenerateRequest, max_bytes=100, seconds=5)


@pytest.mark.parametrize(
    ("body", "pointer", "message"),
    [
        (b"[]", "", r"the body is \[\]; send a JSON object"),
        (b'"seed"', "", "send a JSON object"),
        (b'{"sede": 1}', "/sede", 'unknown member "sede"; known: model, seed, class, truncation, format'),
        (b'{"a/b~c": 1}', "/a~1b~0c", "unknown member"),
        (b'{"seed": -1}', "/seed", "greater than or equal to 0; got -1"),
        (b'{"seed": 18446744073709551616}', "/seed", "less than 18446744073709551616"),
        (b'{"seed": true}', "/seed", "valid integer; got true"),
        (b'{"seed": 1.0}', "/seed", "valid integer"),
        (b'{"seed": "1"}', "/seed", "valid integer"),
        (b'{"class": true}', "/class", "valid string, or: Input should be a valid integer; got true"),
        (b'{"class": -1}', "/class", "greater than or equal to 0"),
        (b'{"class": {"str": 1}}', "/class", "valid string"),
        (b'{"truncation": 0}', "/truncation", "greater than or equal to 0.001"),
        (b'{"truncation": 1.01}', "/truncation", "less than or equal to 1"),
        (b'{"truncation": 1e999}', "/truncation", "got Infinity"),
        (b'{"truncation": 0.0014}', "/truncation", "at most three decimals"),
        (b'{"format": "gif"}', "/format", "'png', 'webp' or 'jpeg'; got \"gif\""),
        (b'{"model": "' + b"m" * 65 + b'"}', "/model", "at most 64 characters"),
        (b'{"seed": 1, "seed": 1}', "", '"seed" comes twice in an object of the body; send it once'),
        (b'{"class": {"a": {"b": 1, "c": 2, "\\u0062": 3}}}', "", '"b" comes twice'),
    ],
)
async def test_points_at_what_is_wrong(body, pointer, message):
    with pytest.raises(InvalidValue, match=message) as error:
        await parse(request(body), GenerateRequest, max_bytes=1000, seconds=5)
    assert error.value.pointer == pointer


def body(*chunks, pause=0.0, ends=True):
    """`receive` for a body that comes in pieces."""
    left = list(chunks)

    async def receive():
        if not left and not ends:
            await anyio.sleep(60)
        await anyio.sleep(pause)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or not ends}

    return receive


async def read_in_time(receive):
    async def app(scope, _, send):
        read.append(await read_body(Request(scope, receive), max_bytes=1000, seconds=0.2))

    read = []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "state": {}}
    await DeadlineMiddleware(app, seconds=60, send_seconds=60)(scope, receive, None)
    return read[0]


@pytest.mark.parametrize(
    "slow",
    [body(ends=False), body(b"begun", ends=False), body(*[b"x"] * 100, pause=0.05), body(b"late", pause=60)],
    ids=["nothing", "stalled", "trickling", "late"],
)
async def test_a_body_that_comes_too_slowly_is_given_up(slow):
    began = time.monotonic()
    with pytest.raises(RequestTimeout, match=r"has not come within 0\.2 seconds"):
        await read_in_time(slow)
    assert time.monotonic() - began < 5


async def test_a_body_that_comes_in_time_is_read():
    assert await read_in_time(body(*[b"x"] * 5, pause=0.01)) == b"xxxxx"
    assert RequestTimeout("late").headers == {"Connection": "close"}


@pytest.mark.parametrize(
    ("schema", "body", "pointer", "message"),
    [
        (SampleRequest, b'{"seeds": [1, -1]}', "/seeds/1", "greater than or equal to 0.*; got -1"),
        (SampleRequest, b'{"seeds": [1, "2-1"]}', "/seeds/1", "the smaller number first"),
        (SampleRequest, b'{"count": 1, "classes": {"%s": -1}}' % (b"a" * 300), "/classes/" + "a" * 200, "at most 200"),
        (SampleRequest, b'{"seeds": {}}', "/seeds", "valid string, or: Input should be a valid list; got {}"),
        (SampleRequest, b'{"classes": {"a/b": 1, "c": 1.5}}', "/classes/c", "valid integer.*; got 1.5"),
        (SampleRequest, b'{"classes": [1, null]}', "/classes/1", "got null"),
        (SampleRequest, b'{"count": 0, "seed": -1}', "/seed", "got -1"),
        (InterpolateRequest, b'{"points": [1, {"seed": -1}]}', "/points/1/seed", "got -1"),
        (InterpolateRequest, b'{"from": {"class": 1}}', "/from", 'Field required; got {"class": 1}'),
        (InterpolateRequest, b'{"to": {"seed": 1, "x": 2}}', "/to/x", "no such member; .* got 2"),
    ],
)
async def test_points_into_what_may_be_several_things(schema, body, pointer, message):
    with pytest.raises(InvalidValue, match=message) as error:
        await parse(request(body), schema, max_bytes=1000, seconds=1)
    assert error.value.pointer == pointer
