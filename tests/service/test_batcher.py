import gc
import math
import re
import threading
import time
import weakref
from concurrent.futures import wait
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, sleep
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher import BULK_EVERY, Batcher, Observer, QueueLimits
from service.errors import DeadlineExceeded, ModelFailure, Overloaded, Stopping
from service.pace import Pace
from service.places import COMPUTING
from service.turns import Turns
from service.work import Work, compute


class Echo:
    """A generator whose picture is its row's number; it waits for `gate`, and remembers its batches."""

    def __init__(self, open_gate=True):
        self.gate = threading.Event()
        self.running = threading.Semaphore(0)
        self.batches = []
        if open_gate:
            self.gate.set()

    def run(self, feed):
        self.batches.append(feed["n"].tolist())
        self.running.release()
        assert self.gate.wait(10)
        if -1 in feed["n"]:
            raise ModelFailure("the generator failed")
        return feed["n"]

    def padding(self, rows):
        return 0


class Log(Observer):
    def __init__(self):
        self.rejections = []
        self.rows = 0

    def batch(self, rows, padding, compute, encode):
        self.rows += rows

    def rejected(self, reason):
        self.rejections.append(reason)


@dataclass
class Left:
    """A long answer."""

    pixels_left: int
    deadline: float = math.inf


def numbers(*values, shape=(), size=1):
    """Work whose result is its own numbers; each is a picture of `size` pixels."""
    return Work(
        len(values), len(values) * size, lambda _: {"n": np.array(values)}, lambda pixels: pixels.tolist(), shape
    )


@pytest.fixture
def make_batcher():
    made = []

    def make(generator, seconds_per_pixel=1e-6, max_pixels=2**20, batch_seconds=math.inf, **settings):
        pace = Pace(seconds_per_pixel, max_pixels=max_pixels, batch_seconds=batch_seconds)
        made.append((generator, Batcher(partial(compute, generator), pace=pace, **settings)))
        return made[-1][1]

    yield make
    for generator, batcher in made:
        generator.gate.set()
        batcher.close()


@pytest.fixture
def busy(make_batcher):
    """A batcher whose only runner is held up by the number 0 until the gate opens."""

    def make(**settings):
        echo = Echo(open_gate=False)
        batcher = make_batcher(echo, **settings)
        first = batcher.submit(numbers(0))
        assert echo.running.acquire(timeout=10)
        return echo, batcher, first

    return make


def results(*futures):
    return [future.result(10).value for future in futures]


def test_a_lone_request_is_not_kept_waiting(make_batcher):
    batcher = make_batcher(Echo())
    done = [batcher.submit(numbers(7)).result(10) for _ in range(50)]
    assert all(each.value == [7] for each in done)
    assert min(each.queue for each in done) < 0.002  # on a busy machine too: a timer would add to each
    assert min(second for each in done for second in (each.queue, each.compute, each.encode)) >= 0


def test_a_runner_that_cannot_be_started_is_started_by_the_next(make_batcher, monkeypatch):
    batcher = make_batcher(Echo())
    with monkeypatch.context() as patched:

        def refuse(self):
            raise RuntimeError("can't start new thread")

        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            batcher.submit(numbers(1))
    assert results(batcher.submit(numbers(2))) == [[2]]


def test_what_arrives_while_a_batch_runs_shares_the_next(busy):
    echo, batcher, first = busy()
    futures = [batcher.submit(numbers(i, 10 * i)) for i in range(1, 6)]
    assert batcher.waiting == 10
    echo.gate.set()
    assert results(first, *futures) == [[0], *([i, 10 * i] for i in range(1, 6))]
    assert len(echo.batches) == 2
    assert batcher.waiting == 0


def test_a_batch_has_no_more_rows_than_it_may(busy):
    echo, batcher, _ = busy(max_rows=4)
    futures = [batcher.submit(numbers(*range(3))) for _ in range(3)]
    echo.gate.set()
    wait(futures, 10)
    assert [len(batch) for batch in echo.batches] == [1, 3, 3, 3]


def test_a_batch_has_no_more_pixels_than_it_may(busy):
    echo, batcher, _ = busy(max_rows=8, max_pixels=1000)
    small = [batcher.submit(numbers(i, size=100, shape=(10, 10))) for i in range(1, 21)]
    large = [batcher.submit(numbers(i, size=400, shape=(20, 20))) for i in range(21, 26)]
    huge = [batcher.submit(numbers(i, size=10_000, shape=(100, 100))) for i in range(26, 28)]
    assert [batcher.rows_of(size) for size in (100, 400, 10_000)] == [8, 2, 1]
    echo.gate.set()
    wait([*small, *large, *huge], 10)
    assert [len(batch) for batch in echo.batches] == [1, 8, 8, 4, 2, 2, 1, 1, 1]


def test_a_machine_that_was_busy_at_the_start_makes_larger_batches_later(make_batcher):
    batcher = make_batcher(Echo(), max_pixels=1000, batch_seconds=1.0, seconds_per_pixel=0.01)
    before = batcher.pace.max_pixels
    assert before == 100
    for index in range(1, 31):
        batcher.submit(numbers(index, size=100)).result(10)
    assert before < batcher.pace.max_pixels <= 1000


def test_waiting_is_reckoned_in_pixels(busy):
    _, batcher, _ = busy(max_pixels=1000, seconds_per_pixel=0.001)
    assert batcher.wait_seconds == pytest.approx(0.001)  # one pixel runs
    batcher.submit(numbers(1, size=4000, shape=(1,)))
    batcher.submit(numbers(2, 3, 4, size=10, shape=(2,)))
    assert batcher.wait_seconds == pytest.approx(0.001 + 4 + 0.03)
    with pytest.raises(Overloaded, match=r"would take about 7\.0 seconds"):
        batcher.submit(numbers(5, size=3000), deadline=monotonic() + 6)
    batcher.submit(numbers(5, size=3000), deadline=monotonic() + 8)


def test_small_batches_hardly_move_the_measured_speed(make_batcher):
    speeds = []
    for size in (1, 1000):
        batcher = make_batcher(Echo(), max_pixels=1000, seconds_per_pixel=100.0)
        batcher.submit(numbers(1, size=size)).result(10)
        batcher.close()
        speeds.append(batcher.pace.seconds_per_pixel)
    assert speeds[0] == pytest.approx(100, rel=1e-3)
    assert speeds[1] == pytest.approx(90, rel=1e-3)


def test_where_batches_take_now_longer_and_now_less_long_more_time_is_reckoned_with(make_batcher, monkeypatch):
    clock = 0.0
    monkeypatch.setattr("service.batcher.monotonic", lambda: clock)

    class Uneven(Echo):
        def run(self, feed):
            nonlocal clock
            clock += feed["n"][0]
            return super().run(feed)

    refused_from = []
    for seconds in ([10, 10], [5, 15]):
        echo = Uneven()
        batcher = make_batcher(echo, max_pixels=1000, seconds_per_pixel=0.01)
        for index in range(40):
            batcher.submit(numbers(seconds[index % 2], size=1000)).result(10)
            assert echo.running.acquire(timeout=10)
        assert batcher.pace.seconds_per_pixel == pytest.approx(0.01, rel=0.1)
        echo.gate.clear()
        running = batcher.submit(numbers(0, size=1000))
        assert echo.running.acquire(timeout=10)
        behind = batcher.submit(numbers(0, size=1000, shape=(1,)))
        with pytest.raises(Overloaded) as refused:
            batcher.submit(numbers(0, size=1000), deadline=clock + 1)
        refused_from.append(float(re.search(r"about ([0-9.]+) seconds", refused.value.detail)[1]))
        echo.gate.set()
        wait([running, behind], 10)
    steady, uneven = refused_from
    assert steady == pytest.approx(30, rel=0.1)
    assert uneven == pytest.approx(60, rel=0.2)


def test_idle_runners_share_what_waits(make_batcher):
    echo = Echo(open_gate=False)
    batcher = make_batcher(echo, turns=Turns(2))
    with batcher._lock:  # no runner takes any before all are there
        held = [batcher.submit(numbers(i)) for i in range(8)]
    for _ in range(2):
        assert echo.running.acquire(timeout=10)
    echo.gate.set()
    assert results(*held) == [[i] for i in range(8)]
    assert sorted(echo.batches) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_next_batch_begins_while_the_files_of_one_are_written(make_batcher):
    echo, slow = Echo(), threading.Event()
    batcher = make_batcher(echo, max_rows=2)
    first = batcher.submit(replace(numbers(1, 2), finish=lambda pixels: slow.wait(10)))
    second = batcher.submit(numbers(3))
    assert second.result(10).value == [3]
    assert not first.done()
    slow.set()
    assert first.result(10).value is True


def test_no_more_batches_run_at_a_time_than_there_are_runners(make_batcher):
    echo = Echo(open_gate=False)
    batcher = make_batcher(echo, turns=Turns(2), max_rows=1)
    futures = [batcher.submit(numbers(i)) for i in range(6)]
    for _ in range(2):
        assert echo.running.acquire(timeout=10)
    assert not echo.running.acquire(timeout=0.2)
    echo.gate.set()
    assert results(*futures) == [[i] for i in range(6)]


def test_only_work_of_one_shape_shares_a_batch(busy):
    echo, batcher, _ = busy()
    futures = [batcher.submit(numbers(i, shape=(i % 2,))) for i in range(1, 5)]
    echo.gate.set()
    assert results(*futures) == [[1], [2], [3], [4]]
    assert all(len({n % 2 for n in batch}) == 1 for batch in echo.batches)


def test_interactive_work_goes_first_and_bulk_does_not_starve(busy):
    echo, batcher, _ = busy(max_rows=1)
    bulk = batcher.submit(numbers(100), priority="bulk")
    interactive = [batcher.submit(numbers(i)) for i in range(1, 10)]
    echo.gate.set()
    wait([bulk, *interactive], 10)
    order = [batch[0] for batch in echo.batches]
    assert order[1] == 1
    assert order.index(100) <= BULK_EVERY + 1


def test_bulk_work_fills_what_interactive_work_leaves(busy):
    echo, batcher, _ = busy(max_rows=4)
    bulk = [batcher.submit(numbers(100 + i), priority="bulk") for i in range(3)]
    interactive = batcher.submit(numbers(1))
    echo.gate.set()
    wait([*bulk, interactive], 10)
    assert echo.batches[1] == [1, 100, 101, 102]


def test_a_client_that_has_gone_is_not_computed(busy):
    log = Log()
    echo, batcher, first = busy(observer=log)
    gone, here = batcher.submit(numbers(1)), batcher.submit(numbers(2))
    assert gone.cancel()
    echo.gate.set()
    assert results(first, here) == [[0], [2]]
    assert echo.batches == [[0], [2]]
    assert log.rejections == ["gone"]


def test_a_client_that_goes_gives_its_place_back_at_once(busy):
    _, batcher, _ = busy(limits=QueueLimits(rows=2))
    batcher.submit(numbers(1))
    gone = batcher.submit(numbers(2))
    with pytest.raises(Overloaded):
        batcher.submit(numbers(3))
    gone.cancel()
    assert batcher.waiting == 1
    batcher.submit(numbers(3))


def test_nothing_is_left_to_the_collector(make_batcher):
    batcher = make_batcher(Echo())
    gc.collect()
    gc.disable()
    try:
        result = batcher.submit(numbers(1))
        result.result(10)
        kept = ref(result)
        del result
        batcher.submit(numbers(2)).result(10)  # the runner lets go of its batch when it takes the next
        assert kept() is None
    finally:
        gc.enable()


def test_what_came_too_late_is_not_computed(busy):
    log = Log()
    echo, batcher, _ = busy(observer=log, seconds_per_pixel=0)
    late = batcher.submit(numbers(1), deadline=monotonic() + 0.05)
    threading.Event().wait(0.1)
    echo.gate.set()
    with pytest.raises(DeadlineExceeded):
        late.result(10)
    assert echo.batches == [[0]]
    assert log.rejections == ["deadline"]


def test_a_full_queue_says_when_to_come_back(busy):
    log = Log()
    _, batcher, _ = busy(limits=QueueLimits(rows=4), seconds_per_pixel=2.0, observer=log)
    batcher.submit(numbers(1, 2, 3))
    with pytest.raises(Overloaded, match="3 pictures are waiting") as error:
        batcher.submit(numbers(4, 5))
    assert error.value.headers == {"Retry-After": "8"}  # three that wait and one that runs, two seconds each
    assert log.rejections == ["queue_full"]
    batcher.submit(numbers(4))


def test_pixels_are_limited_too(busy):
    _, batcher, _ = busy(limits=QueueLimits(pixels=100))
    batcher.submit(Work(1, 60, lambda _: {}, lambda pixels: None))
    with pytest.raises(Overloaded):
        batcher.submit(Work(1, 60, lambda _: {}, lambda pixels: None))


def test_long_answers_keep_no_short_one_out(busy):
    _, batcher, _ = busy(max_pixels=4, limits=QueueLimits(rows=4, pixels=4), seconds_per_pixel=1.0)
    for _ in range(10):
        batcher.submit(numbers(1, 2, 3, 4), priority="bulk")
    assert batcher.wait_seconds == 1  # one row runs, and what is bulk waits for what is not
    batcher.submit(numbers(5, 6), deadline=monotonic() + 9)
    assert batcher.wait_seconds == 1 + 2 + 4  # by now one batch of bulk might come before
    batcher.submit(numbers(7, 8), deadline=monotonic() + 9.5)
    with pytest.raises(Overloaded, match="4 pictures are waiting"):
        batcher.submit(numbers(9))


def test_what_cannot_be_done_in_time_is_refused_at_once(busy):
    log = Log()
    _, batcher, _ = busy(seconds_per_pixel=1.0, observer=log)
    batcher.submit(numbers(1))
    with pytest.raises(Overloaded, match="would take about 3"):
        batcher.submit(numbers(2), deadline=monotonic() + 2)
    assert log.rejections == ["deadline"]


def test_an_idle_runner_takes_work_whatever_the_estimate_says(make_batcher):
    batcher = make_batcher(Echo(), seconds_per_pixel=100.0)
    assert batcher.submit(numbers(1), deadline=monotonic() + 5).result(10).value == [1]
    assert batcher.pace.seconds_per_pixel < 100  # and the estimate learns


def test_bulk_work_is_queued_however_full_it_is(busy):
    _, batcher, _ = busy(limits=QueueLimits(rows=1, bulk_streams=1))
    stream = Left(0)
    batcher.enter_stream(stream)
    for i in range(5):
        batcher.submit(numbers(i), priority="bulk")
    with pytest.raises(Overloaded, match="1 long answers"):
        batcher.enter_stream(Left(0))
    batcher.leave_stream(stream)
    batcher.enter_stream(Left(0))


def test_a_long_answer_is_told_when_the_shortest_of_those_before_it_ends(busy):
    _, batcher, _ = busy(limits=QueueLimits(bulk_streams=2), seconds_per_pixel=0.5)
    for pixels in (1000, 40):
        batcher.enter_stream(Left(pixels))
    with pytest.raises(Overloaded) as error:
        batcher.enter_stream(Left(10))
    # One pixel runs; while 40 of the shorter are made, 40 of the longer are.
    assert error.value.headers == {"Retry-After": "41"}


def test_no_long_answer_is_begun_that_would_make_one_come_too_late(busy):
    log = Log()
    _, batcher, _ = busy(limits=QueueLimits(bulk_streams=9), seconds_per_pixel=1.0, observer=log)
    now = time.monotonic()
    batcher.enter_stream(Left(1000, now + 1))  # alone, and late whatever comes
    batcher.enter_stream(Left(100, now + 250 / COMPUTING))  # while it is made, 100 of the first are
    batcher.enter_stream(Left(10))  # whose beginning is sent at once
    with pytest.raises(Overloaded, match=r"3 long answers .* too late"):
        batcher.enter_stream(Left(100))  # the second would have 310 pixels before its end
    with pytest.raises(Overloaded, match="too late"):
        batcher.enter_stream(Left(5, now + 19 / COMPUTING))  # it would have 20 itself
    batcher.enter_stream(Left(5, now + 22 / COMPUTING))
    assert log.rejections == ["deadline", "deadline"]


def test_whoever_finds_no_place_may_look_again_in_a_minute(busy):
    _, batcher, _ = busy(limits=QueueLimits(bulk_streams=1), seconds_per_pixel=0.5)
    batcher.enter_stream(Left(10**6))
    with pytest.raises(Overloaded) as error:
        batcher.enter_stream(Left(10))
    assert error.value.headers == {"Retry-After": "60"}


@pytest.mark.parametrize("part", ["feed", "finish"])
def test_work_that_raises_harms_itself_alone(busy, part):
    def fail(*args):
        raise ValueError(part)

    echo, batcher, _ = busy()
    bad = Work(1, 1, **{"feed": lambda _: {"n": np.array([5])}, "finish": lambda pixels: None, part: fail})
    futures = [batcher.submit(work) for work in (numbers(1), bad, numbers(2))]
    echo.gate.set()
    assert results(futures[0], futures[2]) == [[1], [2]]
    with pytest.raises(ValueError, match=part):
        futures[1].result(10)


def test_a_row_that_fails_the_graph_harms_itself_alone(busy):
    echo, batcher, _ = busy()
    futures = [batcher.submit(numbers(n)) for n in (1, -1, 2)]
    echo.gate.set()
    assert results(futures[0], futures[2]) == [[1], [2]]
    with pytest.raises(ModelFailure):
        futures[1].result(10)


def test_closing_finishes_what_waits_and_takes_no_more(busy):
    echo, batcher, first = busy()
    second = batcher.submit(numbers(1))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while True:
        try:
            batcher.submit(numbers(2)).cancel()
        except Stopping:
            break
    echo.gate.set()
    closing.join(10)
    assert results(first, second) == [[0], [1]]


def test_tells_how_long_a_batch_has_been_running(busy):
    echo, batcher, first = busy()
    threading.Event().wait(0.05)
    assert batcher.busy_seconds >= 0.05
    echo.gate.set()
    first.result(10)


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
def test_a_result_that_nobody_holds_is_freed_without_the_collector(make_batcher, priority):
    class Picture:
        pass

    batcher = make_batcher(Echo())
    gc.disable()
    try:
        future = batcher.submit(Work(1, 1, lambda _: {"n": np.array([1])}, lambda _: Picture()), priority=priority)
        alive = weakref.ref(future.result(10).value)
        del future
        batcher.submit(numbers(2)).result(10)  # a runner holds its last batch until the next
        assert alive() is None
    finally:
        gc.enable()


@settings(max_examples=30, deadline=None)
@given(
    asks=st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["interactive", "bulk"]), st.integers(0, 1), st.booleans()),
        max_size=60,
    ),
    runners=st.integers(1, 4),
    max_rows=st.integers(5, 12),
)
def test_no_result_ever_reaches_another_request(asks, runners, max_rows):
    batcher = Batcher(partial(compute, Echo()), turns=Turns(runners), max_rows=max_rows)
    expected, futures = [], []
    for index, (rows, priority, shape, leaves) in enumerate(asks):
        expected.append([100 * index + row for row in range(rows)])
        futures.append(batcher.submit(numbers(*expected[-1], shape=(shape,)), priority=priority))
        if leaves:
            futures[-1].cancel()
    for own, future in zip(expected, futures, strict=True):
        if not future.cancelled():
            assert future.result(10).value == own
    batcher.close()
    assert batcher.waiting == 0


def test_only_rows_that_became_results_are_told_of(make_batcher):
    log = Log()
    batcher = make_batcher(Echo(), observer=log)
    futures = [batcher.submit(numbers(n)) for n in (3, -1, 4)]
    wait(futures, 10)
    batcher.close()
    assert log.rows == 2


class Units:
    """A graph that always runs eight rows, and takes a while for them."""

    def __init__(self):
        self.gate = threading.Event()
        self.batches = []

    def run(self, feed):
        self.batches.append(len(feed["n"]))
        sleep(0.02 * -(-len(feed["n"]) // 8))
        return feed["n"]

    def padding(self, rows):
        return -rows % 8


def test_a_graph_that_always_runs_eight_rows_is_given_eight_however_long_they_take(make_batcher):
    units = Units()
    batcher = make_batcher(units, unit=8, batch_seconds=0.01, seconds_per_pixel=0.0025)
    wait([batcher.submit(numbers(n)) for n in range(400)], 30)
    assert batcher.rows_of(1) == 8
    assert units.batches[1:-1] == [8] * len(units.batches[1:-1])  # the first is taken before there are more
