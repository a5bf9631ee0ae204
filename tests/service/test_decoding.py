import asyncio
import threading
import time

import pytest

from service.decoding import Decoding
from service.errors import DeadlineExceeded, Overloaded


class Slow:
    """Something to read that does not end before `end` is set."""

    def __init__(self):
        self.end = threading.Event()
        self.running = self.most = self.begun = 0
        self._lock = threading.Lock()

    def __call__(self):
        with self._lock:
            self.begun += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self.end.wait(10)
        with self._lock:
            self.running -= 1


@pytest.fixture
def decoding():
    decoding = Decoding(2)
    yield decoding
    decoding.close()


def test_it_gives_what_was_read_or_what_went_wrong(decoding):
    async def read():
        assert await decoding.run(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await decoding.run(lambda: 1 // 0)

    asyncio.run(read())


def test_who_is_left_behind_keeps_its_place_and_who_waits_never_begins(decoding):
    slow = Slow()

    async def read():
        for _ in range(10):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(decoding.run(slow), 0.02)
        slow.end.set()
        return await decoding.run(lambda: "the next")

    assert asyncio.run(read()) == "the next"
    assert (slow.most, slow.begun) == (2, 2)


def test_a_deadline_that_has_passed_is_no_overload(decoding):
    with pytest.raises(DeadlineExceeded, match="while the upload came"):
        asyncio.run(decoding.run(lambda: 7, deadline=time.monotonic()))


def test_what_would_be_read_too_late_is_refused_at_once(decoding):
    async def read():
        for _ in range(10):
            await decoding.run(lambda: time.sleep(0.02))  # so long does one take
        slow = Slow()
        waiting = [asyncio.create_task(decoding.run(slow)) for _ in range(102)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"102 uploads are being read, .* send it again later"):
            await decoding.run(slow, deadline=time.monotonic() + 0.5)
        later = asyncio.create_task(decoding.run(slow, deadline=time.monotonic() + 60))
        slow.end.set()
        await asyncio.gather(*waiting, later)
        assert await decoding.run(lambda: "the next", deadline=time.monotonic() + 0.5) == "the next"

    asyncio.run(read())
