import asyncio
import threading

import pytest

from service.arrivals import Arrivals

pytestmark = pytest.mark.anyio


async def test_every_result_reaches_the_one_who_waits_for_it():
    arrivals = Arrivals()
    expected = [arrivals.expect() for _ in range(300)]
    threads = [
        threading.Thread(target=lambda part=part: [arrival.set_result(id(arrival)) for arrival in part])
        for part in (expected[::3], expected[1::3], expected[2::3])
    ]
    for thread in threads:
        thread.start()
    results = await asyncio.wait_for(asyncio.gather(*(arrival.waiter for arrival in expected)), 30)
    assert results == [id(arrival) for arrival in expected]
    for thread in threads:
        thread.join()


async def test_a_failure_arrives_too():
    arrival = Arrivals().expect()
    arrival.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await asyncio.wait_for(arrival.waiter, 30)


async def test_what_has_been_given_up_need_not_be_computed():
    arrival = Arrivals().expect()
    assert arrival.set_running_or_notify_cancel()
    assert not arrival.cancelled()
    arrival.waiter.cancel()
    assert not arrival.set_running_or_notify_cancel()
    assert arrival.cancelled()


async def test_what_comes_after_giving_up_harms_nobody():
    arrivals = Arrivals()
    given_up, other = arrivals.expect(), arrivals.expect()
    given_up.waiter.cancel()
    given_up.set_result(1)
    other.set_result(2)
    assert await asyncio.wait_for(other.waiter, 30) == 2


async def test_the_first_result_counts():
    arrival = Arrivals().expect()
    arrival.set_result(1)
    arrival.set_exception(ValueError("the batch failed later"))
    assert await asyncio.wait_for(arrival.waiter, 30) == 1


async def test_loops_do_not_mix():
    arrivals, results = Arrivals(), []

    async def elsewhere():
        arrival = arrivals.expect()
        threading.Timer(0.01, arrival.set_result, ["there"]).start()
        results.append(await asyncio.wait_for(arrival.waiter, 30))

    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    here = arrivals.expect()
    here.set_result("here")
    assert await asyncio.wait_for(here.waiter, 30) == "here"
    await asyncio.to_thread(thread.join)
    assert results == ["there"]
