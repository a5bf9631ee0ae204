import asyncio
import threading
from concurrent.futures import Future

import pytest

from service.arrivals import Arrivals

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_every_result_reaches_the_one_who_waits_for_it():
    arrivals = Arrivals()
    futures = [Future() for _ in range(300)]
    waiting = [arrivals.expect(future) for future in futures]
    threads = [
        threading.Thread(target=lambda part=part: [future.set_result(id(future)) for future in part])
        for part in (futures[::3], futures[1::3], futures[2::3])
    ]
    for thread in threads:
        thread.start()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [id(future) for future in futures]
    for thread in threads:
        thread.join()


async def test_a_failure_arrives_too():
    future = Future()
    waiting = Arrivals().expect(future)
    future.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await asyncio.wait_for(waiting, 30)


async def test_giving_up_spares_the_work():
    future = Future()
    Arrivals().expect(future).cancel()
    await asyncio.sleep(0)
    assert future.cancelled()


async def test_what_comes_after_giving_up_harms_nobody():
    arrivals, late, other = Arrivals(), Future(), Future()
    late.set_running_or_notify_cancel()
    given_up, waiting = arrivals.expect(late), arrivals.expect(other)
    given_up.cancel()
    late.set_result(1)
    other.set_result(2)
    assert await asyncio.wait_for(waiting, 30) == 2
