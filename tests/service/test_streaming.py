"""Long answers, behind a real server: only there can a client leave, or an answer break off."""

import asyncio
import gc
import io
import threading
import weakref
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace

import httpx2
import pytest
from starlette.requests import ClientDisconnect

from service.animations import ANIMATIONS
from service.archives import ARCHIVES
from service.batcher import QueueLimits
from service.cpus import available_cpus
from service.deadline import Clock
from service.generator import MAX_BATCH
from service.pieces import Pieces
from service.streaming import LONGEST_CHUNK, PiecesResponse, joined
from service.work import keep

MANY = {"seed": 0, "count": 20_000, "format": "tar"}
pytestmark = pytest.mark.usefixtures("plain")

RUNNERS = available_cpus()
STREAMED = [name for name in ARCHIVES if name != "sheet"]


def test_files_that_nobody_waits_for_keep_their_places(serve, monkeypatch):
    """Clients with short deadlines could otherwise have any number of animations written at a time."""
    going_on, ended = threading.Semaphore(0), threading.Event()

    def write(pieces, way, milliseconds):
        list(pieces)
        going_on.release()
        assert ended.wait(30)
        yield b"file"

    monkeypatch.setitem(ANIMATIONS, "gif", replace(ANIMATIONS["gif"], write=write))
    ask = {"points": [{"seed": 1}, {"seed": 2}], "steps": 2, "format": "gif"}
    with serve(max_streams=2) as client:
        answers = [client.post("/interpolate", json=ask, headers={"X-Deadline-Ms": "300"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [504, 504, 429]
        ended.set()
    assert going_on._value == 2


def test_small_chunks_are_joined():
    assert list(joined([b"ab", b"c", b"", b"defgh", b"i"], size=3)) == [b"abc", b"defgh", b"i"]
    assert list(joined([], size=3)) == []


def test_large_chunks_are_divided():
    whole = bytes(range(256)) * (LONGEST_CHUNK // 100)
    chunks = list(joined([whole, b"x"]))
    assert b"".join(chunks) == whole + b"x"
    assert {len(chunk) for chunk in chunks[:-2]} == {LONGEST_CHUNK}


def test_an_answer_that_is_broken_off_lets_go_of_what_it_was_made_of(load, plain):
    bundle = load(plain, limits=QueueLimits(bulk_streams=1))

    def works():
        return (bundle.work([bundle.sample(seed=seed)], keep) for seed in range(100))

    def write(pieces):
        for _ in pieces:
            yield b"x"

    pieces = Pieces(bundle.batcher, works())
    chunks = write(pieces)
    response, left = PiecesResponse(pieces, chunks, media_type="x/y", headers={}), asyncio.Event()
    alive = weakref.ref(chunks)
    del chunks

    async def send(message):
        if message.get("body"):
            left.set()

    async def receive():
        await left.wait()
        return {"type": "http.disconnect"}

    async def answer():
        await response(
            {"type": "http", "asgi": {"spec_version": "2.3"}, "state": {"clock": Clock({}, 60)}}, receive, send
        )

    gc.disable()
    try:
        with pytest.raises(ClientDisconnect):
            asyncio.run(answer())
        assert alive() is None
    finally:
        gc.enable()
    next(Pieces(bundle.batcher, works()))  # the only place is free


@pytest.mark.parametrize("name", STREAMED)
def test_an_answer_that_fails_half_way_is_never_a_normal_end(gate, listen, caplog, name):
    gate.fails_after = 50
    gate.opened.set()
    with listen() as server, server.stream("/sample", {**MANY, "format": name}) as response:
        assert response.status_code == 200
        with pytest.raises(httpx2.RemoteProtocolError):
            response.read()
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert "the generator failed" in caplog.text
    assert logged.request_id == response.headers["x-request-id"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_fails_before_the_first_chunk_is_a_problem(gate, listen, name):
    gate.fails_after = 0
    gate.opened.set()
    with listen(max_streams=1) as server:
        for _ in range(2):  # the place of the first is given back
            with server.stream("/sample", {"count": 10_000, "format": name}) as response:
                assert response.status_code == 500
                assert response.headers["content-type"] == "application/problem+json"
                assert "the generator failed" in response.read().decode()


@pytest.mark.parametrize("name", ARCHIVES)
def test_one_stream_too_many_is_told_before_it_begins(gate, listen, name):
    gate.opened.set()
    with listen(max_streams=1) as server, server.stream("/sample", MANY) as first:
        first_chunk = next(chunks := first.iter_bytes())
        with server.stream("/sample", {"count": 1, "format": name}) as second:
            assert second.status_code == 429
            assert int(second.headers["retry-after"]) >= 1
            assert second.headers["content-type"] == "application/problem+json"
        assert server.client.post("/generate", json={}).status_code == 200  # which needs no place
        assert first_chunk + next(chunks)  # and the first goes on


def test_long_answers_that_wait_leave_threads_for_others(gate, listen, eventually):
    with listen(max_streams=50) as server, ExitStack() as clients:
        for _ in range(50):
            clients.enter_context(server.ask("/sample", MANY))
        first_pieces = (2 * RUNNERS + 1) * MAX_BATCH
        eventually(lambda: server.waiting > 45 * first_pieces)  # of nearly all; some are with the runners
        assert server.client.get("/docs", timeout=10).status_code == 200
        gate.opened.set()


@pytest.mark.parametrize("name", STREAMED)
def test_a_client_that_leaves_ends_the_work(gate, listen, eventually, name):
    gate.opened.set()
    with listen(max_streams=1) as server:
        with server.stream("/sample", {**MANY, "format": name}) as response:
            next(response.iter_bytes())
        eventually(lambda: server.client.post("/sample", json={"count": 1}).status_code == 200)
        assert server.waiting == 0
        assert sum(gate.rows) < MANY["count"]


def test_a_client_that_leaves_in_the_middle_leaves_nothing_in_the_queue(gate, listen, eventually, caplog):
    gate.opened.set()
    with listen() as server:
        with server.ask("/sample", MANY) as client:
            assert client.recv(1024)
            gate.opened.clear()
            client.settimeout(0.1)
            with suppress(TimeoutError):  # there is no more, and a thread waits for the next piece
                while client.recv(2**20):
                    pass
            eventually(lambda: server.waiting)
        eventually(lambda: not server.waiting)  # though no batch ends
        runs = len(gate.rows)
        gate.opened.set()
        eventually(lambda: server.count("ganery_requests_total", route="/sample", status="499", model="plain") == 1)
        assert server.client.post("/sample", json={"count": 1}).status_code == 200
        assert len(gate.rows) == runs + 1
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/sample", {**MANY, "format": "sheet"}),
        ("/sample", {**MANY, "format": "npz"}),
        ("/interpolate", {"from": 1, "to": 2, "steps": 200}),
    ],
)
def test_a_client_that_leaves_before_the_first_chunk_ends_the_work(gate, listen, eventually, path, ask):
    with listen(max_streams=1) as server:
        with server.ask(path, ask):
            eventually(lambda: len(gate.rows) == RUNNERS and server.waiting)
        eventually(lambda: server.count("ganery_requests_total", route=path, status="499", model="plain") == 1)
        runs = len(gate.rows)
        gate.opened.set()
        eventually(lambda: server.client.post("/sample", json={"count": 1}).status_code == 200)
        assert len(gate.rows) == runs + 1
        assert server.count("ganery_rejections_total", model="plain", reason="gone") > 0


def test_a_lone_client_that_leaves_is_not_computed_for(gate, listen, eventually):
    with listen() as server:
        with ThreadPoolExecutor() as threads:
            held = []
            while len(held) < RUNNERS:
                held.append(threads.submit(server.client.post, "/generate", json={}))
                assert gate.reached.acquire(timeout=30)
            with server.ask("/generate", {}):
                eventually(lambda: server.waiting)
            eventually(lambda: server.count("ganery_requests_total", route="/generate", status="499", model="plain"))
            gate.opened.set()
            assert all(future.result(30).status_code == 200 for future in held)
        eventually(lambda: server.count("ganery_rejections_total", model="plain", reason="gone") == 1)
        assert len(gate.rows) == RUNNERS


@pytest.mark.parametrize(
    ("path", "ask"),
    [("/sample", {"count": 500, "format": "sheet"}), ("/interpolate", {"from": 1, "to": 2, "steps": 200})],
)
def test_a_deadline_ends_what_no_client_will_wait_for(gate, listen, eventually, path, ask):
    with listen(max_streams=1) as server:
        response = server.client.post(path, json=ask, headers={"X-Deadline-Ms": "200"})
        assert response.status_code == 504
        runs = len(gate.rows)
        gate.opened.set()
        eventually(lambda: server.client.post("/sample", json={"count": 1}).status_code == 200)
        assert len(gate.rows) == runs + 1


def test_a_long_answer_keeps_nobody_else_waiting_to_its_end(gate, listen):
    gate.opened.set()
    with listen() as server, ThreadPoolExecutor() as threads:
        begun = threading.Event()

        def read():
            with server.stream("/sample", {"seed": 0, "count": 4000, "format": "zip"}) as response:
                received = bytearray()
                for chunk in response.iter_bytes():
                    received += chunk
                    begun.set()
            return bytes(received)

        stream = threads.submit(read)
        assert begun.wait(30)
        for seed in range(3):
            assert server.client.post("/generate", json={"seed": seed}).status_code == 200
        assert not stream.done()
        with zipfile.ZipFile(io.BytesIO(stream.result(60))) as container:
            assert len(container.namelist()) == 4000
