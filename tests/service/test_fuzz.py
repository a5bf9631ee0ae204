"""Whatever comes to a route that makes something: an answer that its document names, never a failure of ours."""

import io
import json
import logging
import zipfile
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.animations import ANIMATIONS
from service.archives import ARCHIVES
from service.formats import FORMATS
from service.openapi import document
from service.schemas import GenerateRequest, InterpolateRequest, SampleRequest
from service.uploads import READERS

RESPONSES = {
    path: operations["post"]["responses"]
    for path, operations in json.loads(document())["paths"].items()
    if "post" in operations
}
REQUESTS = {"/generate": GenerateRequest, "/sample": SampleRequest, "/interpolate": InterpolateRequest}
KINDS = [reader.decoder.format for reader in READERS.values()]
FUZZ = settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))

characters = st.characters() | st.characters(categories=["Cs"])  # half characters too
text = st.text(characters, max_size=8)
integers = st.integers() | st.integers(0, 70).map(lambda n: 2**n) | st.integers(0, 5000).map(lambda n: -(10**n))
scalars = st.none() | st.booleans() | integers | st.floats() | text
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=8
)
seed = st.integers(0, 2**64 - 1) | st.integers(2**64 - 9, 2**64 + 9)
class_ = st.sampled_from(["zero", "two", "0", "three", 0, 2, 3, -1, 10**9, 2**70])
formats = st.sampled_from([*FORMATS, *ARCHIVES, *ANIMATIONS, "PNG", ""])
ranges = st.from_regex(r"[0-9]{1,3}(-[0-9]{1,3})?(,[0-9]{1,2}(-[0-9]{1,3})?)*", fullmatch=True) | st.sampled_from(
    ["0-18446744073709551615", "18446744073709551616", "9-1", "1-", "-1", "1,", " 1 - 2 ", "٣", "9" * 9999]
)
point = seed | st.fixed_dictionaries({"seed": seed}, optional={"class": class_, "label": anything})
counts = st.integers(-2, 300) | integers
plausible = {
    "model": st.sampled_from(["plain", "digits", "nothing", "", "m" * 65, None]),
    "seed": seed,
    "class": class_,
    "truncation": st.sampled_from([1, 1.0, 0.5, 0.001, 0.0005, 0, -1, 1.001]),
    "format": formats,
    "count": counts,
    "seeds": ranges | seed | st.lists(seed | ranges, max_size=5),
    "classes": class_ | st.lists(class_, max_size=5) | st.dictionaries(class_.map(str) | text, counts, max_size=5),
    "picture": formats,
    "from": point,
    "to": point,
    "points": st.lists(point, max_size=5),
    "steps": counts,
    "loop": st.booleans(),
    "milliseconds": st.integers(0, 20_000),
}


good = {
    "/generate": [{"model": "plain"}, {"model": "digits", "class": 1, "truncation": 0.5, "format": "webp"}],
    "/sample": [
        {"model": "plain", "count": 9, "format": "npz"},
        {"model": "digits", "seeds": "1-3,8", "classes": ["one", 2], "format": "tar", "picture": "jpeg"},
        {"model": "digits", "seed": 2**64 - 1, "classes": {"zero": 3, "1": 0, "2": 4}, "format": "json"},
        {"count": 4, "format": "sheet"},
    ],
    "/interpolate": [
        {"model": "plain", "from": 1, "to": 1, "steps": 3},
        {"model": "digits", "points": [1, {"seed": 2, "class": 1}, 3], "class": 0, "loop": True, "format": "webp"},
    ],
}


@st.composite
def asks(draw, path):
    """JSON for a route: something good, from which members are missing and to which others come, some of them twice."""
    names = [field.alias or name for name, field in REQUESTS[path].model_fields.items()]
    base = draw(st.sampled_from([{}, *good[path], *good[path]]))
    members = [(name, value) for name, value in base.items() if draw(st.integers(0, 9))]
    for name in draw(st.lists(st.sampled_from(names) | text, max_size=2)):
        usual = plausible.get(name, anything)
        members.append((name, draw(usual if draw(st.integers(0, 3)) else anything)))
    return "{" + ",".join(f"{json.dumps(name)}:{in_json(value)}" for name, value in members) + "}"


def in_json(value):
    """As JSON, with the NaN, the half characters and the thousands of digits that Python is careful with."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**4000:
        return f"{'-' if value < 0 else ''}{'9' * (value.bit_length() * 3 // 10)}"
    if isinstance(value, list):
        return f"[{','.join(map(in_json, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{in_json(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture(scope="module")
def client(serve_models):
    with serve_models(max_count=100, max_pixels=64 * 64, deadline_seconds=20) as client:
        client.raise_server_exceptions = False
        yield client


@pytest.fixture
def has_answer(client, caplog):
    """Ask, and look at the answer and at the log."""

    def ask(path, body, **headers):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            response = client.post(path, content=body, headers={"content-type": "application/json", **headers})
        documented = RESPONSES[path.partition("?")[0]][str(response.status_code)]
        assert response.headers["content-type"].partition(";")[0] in documented["content"]
        assert response.status_code < 500 or "x-deadline-ms" in headers
        if response.status_code >= 400:
            assert response.json()["status"] == response.status_code
        assert not caplog.records
        return response

    return ask


@pytest.mark.parametrize("path", REQUESTS)
@FUZZ
@given(st.data())
def test_any_json_has_an_answer(has_answer, path, data):
    has_answer(path, data.draw(asks(path)).encode())


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{" * 65_000,
        b"[" * 65_536,
        b'{"model":' * 7000 + b"1" + b"}" * 7000,
        b'{"seed":' + b"9" * 60_000 + b"}",
        b'{"seed":1e400}',
        b'{"seed":-0}',
        b'{"seed":NaN,"seed":1}',
        b'{"model":"' + b"\\ud800" * 10_000 + b'"}',
        b'{"model":"\xff\xfe"}',
        b'\xef\xbb\xbf{"model":"plain"}',
        b'{"model":"plain","model":"digits","model":{}}',
        b'{"' + b"x" * 65_000 + b'":1}',
        b'{"classes":{' + b",".join(b'"%d":1' % n for n in range(7000)) + b"}}",
        b'{"classes":[' + b",".join([b'"three"'] * 8000) + b"]}",
        b'{"seeds":[' + b",".join([b"1"] * 30_000) + b"]}",
        b'{"seeds":[' + b",".join([b'"1-3,7"'] * 7000) + b"]}",
        b'{"seeds":"' + b"1," * 4999 + b'1"}',
        b'{"points":[' + b",".join([b'{"seed":-1}'] * 5000) + b"]}",
        b" " * 65_536,
        b" " * 65_537,
        b"\0" * 100,
    ],
)
def test_the_worst_bodies_have_an_answer(has_answer, path, body):
    assert has_answer(path, body).status_code in (200, 400, 413, 422)


@FUZZ
@given(
    path=st.sampled_from([*REQUESTS, "/verify", "/translate"]),
    headers=st.fixed_dictionaries(
        {},
        optional={
            name: st.binary(max_size=20).filter(lambda value: not set(value) & {0, 10, 13}) | st.sampled_from(usual)
            for name, usual in {
                "accept": [b"*/*", b"image/*;q=0.5", b"text/html", b"application/zip, */*;q=0", b";;;q=,,"],
                "content-type": [b"application/json", b"application/json; charset=x", b"multipart/form-data", b""],
                "content-encoding": [b"identity", b"gzip", b""],
                "x-deadline-ms": [b"60000", b"1", b"0", b"-1", b"1e9", b"9" * 400],
                "x-request-id": [b"mine", b"a" * 65, b"a\tb"],
                "if-none-match": [b"*", b'"x"', b'W/"'],
                "expect": [b"100-continue"],
                "authorization": [b"Bearer x"],
                "range": [b"bytes=0-1"],
                "traceparent": [b"00-0-0-0"],
                "origin": [b"null"],
            }.items()
        },
    ),
)
def test_any_headers_have_an_answer(has_answer, path, headers):
    has_answer(path, b'{"model":"plain","count":2,"from":1,"to":2}', **headers)
    has_answer(path, b'{"model":"plain"}', **headers)


@FUZZ
@given(
    says=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
    | st.dictionaries(st.just("id") | text, anything, max_size=4).map(in_json),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.binary(max_size=4)), max_size=3),
)
def test_any_picture_has_a_verdict(has_answer, says, cuts):
    info = PngInfo()
    info.add_itxt("ganery", says)
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "PNG", pnginfo=info)
    content = bytearray(stream.getvalue())
    for start, length, other in cuts:
        content[start : start + length] = other
    has_answer("/verify", bytes(content))


FORM = {"content-type": "multipart/form-data; boundary=x"}
ZIP = {"content-type": "application/zip"}
fields = st.sampled_from(["model", "seed", "format", "picture", "image"]) | text
values = st.sampled_from(["fixed", "any", "plain", "1", str(2**64), "-1", "zip", "tar", "webp", "", "9" * 5000]) | text


def picture_file(size=(8, 8), kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, kind)
    return stream.getvalue()


def cut(content, cuts):
    damaged = bytearray(content)
    for start, length, other in cuts:
        damaged[start : start + length] = other
    return bytes(damaged)


damage = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 4), st.binary(max_size=4)), max_size=2)


@FUZZ
@given(st.lists(st.tuples(fields, values), max_size=3), st.sampled_from(KINDS), damage)
def test_any_picture_and_any_query_have_an_answer(has_answer, query, kind, cuts):
    path = "/translate?" + urlencode([(encoded(name), encoded(value)) for name, value in query])
    has_answer(path, cut(picture_file((9, 5), kind), cuts), **{"content-type": "image/png"})


@FUZZ
@given(st.lists(st.tuples(fields, values | st.none()), max_size=5), damage)
def test_any_form_has_an_answer(has_answer, parts, cuts):
    body = b""
    for name, value in [("model", "any"), *parts]:
        file = '; filename="a.png"' if value is None else ""
        content = picture_file() if value is None else encoded(value)
        body += b'--x\r\nContent-Disposition: form-data; name="%b"' % encoded(name)
        body += file.encode() + b"\r\n\r\n" + content + b"\r\n"
    has_answer("/translate", cut(body + b"--x--\r\n", cuts), **FORM)


@FUZZ
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9),
        st.booleans(),
        max_size=3,
    ),
    damage,
)
def test_any_zip_has_an_answer(has_answer, members, cuts):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, good in members.items():
            archive.writestr(name, picture_file() if good else b"no picture")
    has_answer("/translate?model=any", cut(stream.getvalue(), cuts), **ZIP)


def encoded(value):
    return value.encode("utf-8", "surrogatepass")
