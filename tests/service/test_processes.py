import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.breaker import MOST_ENDS, Breaker
from service.bundle import Bundle
from service.errors import InvalidBundle, ModelFailure, NotReady
from service.manifest import GENERATOR_FILE
from service.processes import Processes, how_many
from service.runtime import CPU
from service.work import TrialRows, Work, keep

MANY = 10**10


def engine_of(count=1, **settings):
    return Processes(count, "cpu", **{"trial_seconds": 60, "trial_bytes": 256 * 2**20, **settings})


@pytest.fixture(scope="module")
def engine() -> Iterator[Processes]:
    engine = engine_of()
    yield engine
    engine.close()


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Processes]]:
    made = []

    def make(*args, **settings):
        made.append(engine_of(*args, **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def graph(nodes, constants, weights=None, picture=(8, 8, 3)):
    """z @ weights + extra as pixels, where `nodes` make extra, a float of no dimensions."""
    constants = {
        "weights": np.zeros((4, 192), np.float32) if weights is None else weights,
        "shape": np.array([-1, *picture]),
        **constants,
    }
    return helper.make_model(
        helper.make_graph(
            [
                *nodes,
                helper.make_node("MatMul", ["z", "weights"], ["projected"]),
                helper.make_node("Add", ["projected", "extra"], ["sum"]),
                helper.make_node("Cast", ["sum"], ["bytes"], to=TensorProto.UINT8),
                helper.make_node("Reshape", ["bytes", "shape"], ["pixels"]),
            ],
            "hostile",
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", "C"])],
            [
                value if hasattr(value, "dims") else numpy_helper.from_array(np.asarray(value), name)
                for name, value in constants.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


NO_EXTRA = {"extra": np.float32(0)}
LARGEST = helper.make_node("ReduceMax", ["much"], ["extra"], keepdims=0)


def huge_constant():
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    return graph([helper.make_node("ConstantOfShape", ["size"], ["much"], value=value), LARGEST], {"size": [MANY]})


def huge_expand():
    return graph(
        [helper.make_node("Expand", ["one", "size"], ["much"]), LARGEST], {"one": np.float32(1), "size": [MANY]}
    )


def huge_tile():
    nodes = [helper.make_node("Tile", ["one", "size"], ["much"]), LARGEST]
    return graph(nodes, {"one": np.ones(1, np.float32), "size": [5 * 10**8]})  # above a billion ONNX Runtime refuses


def huge_range():
    constants = {"start": np.float32(0), "limit": np.float32(MANY), "delta": np.float32(1)}
    return graph([helper.make_node("Range", list(constants), ["much"]), LARGEST], constants)


def huge_resize():
    nodes = [helper.make_node("Resize", ["one", "", "", "sizes"], ["much"]), LARGEST]
    return graph(nodes, {"one": np.ones((1, 1, 1, 1), np.float32), "sizes": [1, 1, 10**5, 10**5]})


def huge_pad():
    nodes = [helper.make_node("Pad", ["one", "pads"], ["much"]), LARGEST]
    return graph(nodes, {"one": np.ones(1, np.float32), "pads": [0, MANY]})


def huge_product():
    """A column times a row: neither is large."""
    nodes = [
        helper.make_node("ConstantOfShape", ["column"], ["a"]),
        helper.make_node("ConstantOfShape", ["row"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["much"]),
        LARGEST,
    ]
    return graph(nodes, {"column": [10**5, 1], "row": [1, 10**5]})


def huge_for_a_batch_that_is_large():
    """N to the sixth: 64 values for two pictures, 10**9 for thirty-two."""
    nodes = [
        helper.make_node("Shape", ["z"], ["n"], end=1),
        helper.make_node("Concat", ["n"] * 6, ["size"], axis=0),
        helper.make_node("Expand", ["one", "size"], ["much"]),
        LARGEST,
    ]
    return graph(nodes, {"one": np.float32(1)})


def overflowing_size():
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    size = {"size": [2**32, 2**32, 2**32]}
    return graph([helper.make_node("ConstantOfShape", ["size"], ["much"], value=value), LARGEST], size)


def negative_size():
    return graph([helper.make_node("ConstantOfShape", ["size"], ["much"]), LARGEST], {"size": [-5]})


def weights_of_shape(*dims):
    def build():
        weights = numpy_helper.from_array(np.zeros((4, 192), np.float32), "weights")
        weights.dims[:] = dims
        return graph([], NO_EXTRA, weights)

    return build


def another_picture():
    """Thrice the rows, each a third of what the manifest says."""
    return graph([], NO_EXTRA, picture=(8, 8, 1))


def broken_for_a_batch_that_is_large():
    nodes = [
        helper.make_node("Shape", ["z"], ["n"], end=1),
        helper.make_node("Gather", ["table", "n"], ["extra"]),
    ]
    return graph(nodes, {"table": np.zeros(9, np.float32)})


MEMORY = "its graph needs more than 268435456 bytes of memory"

HOSTILE = {
    huge_constant: MEMORY,
    huge_expand: MEMORY,
    huge_tile: MEMORY,
    huge_range: MEMORY,
    huge_resize: MEMORY,
    huge_pad: MEMORY,
    huge_product: MEMORY,
    huge_for_a_batch_that_is_large: f"{MEMORY}: warming up: the generator failed on 32 rows",
    overflowing_size: "the generator failed on 8 rows",
    negative_size: "ONNX Runtime does not load the graph",
    weights_of_shape(4, -192): "ONNX Runtime does not load the graph",
    weights_of_shape(0, 192): "ONNX Runtime does not load the graph",
    weights_of_shape(4, 2**62): "ONNX Runtime does not load the graph",
    weights_of_shape(2**40, 2**40, 2**40): "ONNX Runtime does not load the graph",
    another_picture: "pixels has shape",
    broken_for_a_batch_that_is_large: "the generator failed on 32 rows",
}


@pytest.mark.parametrize(("build", "message"), HOSTILE.items())
def test_a_hostile_graph_is_refused_beside_a_good_one(engine, build, message, make_bundle, refusal):
    make_bundle("evil", graph=build())
    began = time.monotonic()
    assert message in refusal(engine=engine)
    assert time.monotonic() - began < 30


def test_a_graph_that_computes_for_hours_is_ended(make_bundle, make_engine, refusal):
    size = [3000, 3000]
    products = [
        helper.make_node("MatMul", ["square" if i == 0 else f"p{i}", "square"], [f"p{i + 1}"]) for i in range(5000)
    ]
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["square"]),
        *products,
        helper.make_node("ReduceMax", ["p5000"], ["extra"], keepdims=0),
    ]
    make_bundle("evil", graph=graph(nodes, {"size": size}))
    began = time.monotonic()
    assert "took more than the 8 seconds of SERVICE_TRIAL_SECONDS" in refusal(engine=make_engine(trial_seconds=8))
    assert time.monotonic() - began < 40


@pytest.fixture
def running(digits, make_engine):
    """An engine of two processes, and a bundle that it runs."""
    ended = []
    engine = make_engine(2, on_end=lambda: ended.append(True))
    bundle = Bundle.load(digits, engine=engine)
    engine.start()
    return engine, bundle, ended


def idle(engine):
    return [place for *_, place in engine._idle._queue.queue]


def of_seeds(bundle, *seeds):
    samples = [bundle.sample(seed=seed, class_=0) for seed in seeds]
    return [bundle.work([sample], keep) for sample in samples]


def test_every_process_makes_what_this_one_would(running, digits_bundle, digits):
    engine, bundle, _ = running
    here, with_all = digits_bundle, of_seeds(bundle, *range(6))
    for _ in range(4):
        for seed, result in enumerate(engine.compute("digits", with_all).results):
            np.testing.assert_array_equal(result.value[0], here.picture(here.sample(seed=seed, class_=0)))


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_a_process_that_has_been_killed_is_replaced_and_nobody_notices(running, seeds):
    engine, bundle, ended = running
    expected = [result.value for result in engine.compute("digits", of_seeds(bundle, *seeds)).results]
    for process in idle(engine):
        os.kill(process.pid, signal.SIGKILL)
    again = engine.compute("digits", of_seeds(bundle, *seeds)).results
    np.testing.assert_array_equal([result.value for result in again], expected)
    assert ended


def test_work_that_ends_every_process_fails_alone(running):
    engine, bundle, ended = running
    first, last = of_seeds(bundle, 1, 2)
    results = engine.compute("digits", [first, replace(first, finish=end_the_process), last]).results
    assert [result.error is None for result in results] == [True, False, True]
    assert isinstance(results[1].error, ModelFailure)
    assert len(ended) == 4  # twice with the others, twice alone


def test_a_bundle_that_only_ends_processes_is_left_alone_and_the_others_are_served(
    digits, plain, make_engine, monkeypatch
):
    ended = []
    engine = make_engine(1, on_end=lambda: ended.append(1))
    digits_bundle, plain_bundle = Bundle.load(digits, engine=engine), Bundle.load(plain, engine=engine)
    monkeypatch.setattr("service.breaker.MOST_ENDS", 3)
    monkeypatch.setattr("service.breaker.REST_SECONDS", 60)
    (good,) = of_seeds(digits_bundle, 1)
    bad, rests = replace(good, finish=end_the_process), pytest.raises(NotReady, match="'digits' rests for 60 s")

    (first,) = engine.compute("digits", [bad]).results  # twice
    assert isinstance(first.error, ModelFailure)
    (second,) = engine.compute("digits", [bad]).results  # once
    (third,) = engine.compute("digits", [good]).results
    for result in (second, third):
        assert result.error.headers == {"Retry-After": "60"}
        with rests:
            raise result.error
    assert len(ended) == 3
    assert engine.compute("plain", [plain_bundle.work([plain_bundle.sample(seed=1)], keep)]).results[0].error is None

    monkeypatch.setattr("service.breaker.monotonic", lambda: time.monotonic() + 61)
    (trial,) = engine.compute("digits", [bad]).results  # the first end decides
    assert isinstance(trial.error, NotReady)
    assert len(ended) == 4
    monkeypatch.setattr("service.breaker.monotonic", lambda: time.monotonic() + 122)
    for works in ([good], [bad]):  # one answer, and they are counted from nothing
        (result,) = engine.compute("digits", works).results
        assert not isinstance(result.error, NotReady)


def test_an_answer_that_was_under_way_ends_the_rest():
    breaker = Breaker("digits")
    for _ in range(MOST_ENDS):
        breaker.check()
        breaker.ended()
    with pytest.raises(NotReady, match=f"{MOST_ENDS} processes"):
        breaker.check()
    breaker.answered()
    breaker.check()


def test_a_batch_waits_behind_one_whose_files_are_written_only_if_all_processes_write(running, eventually):
    engine, bundle, ended = running
    engine.start()
    eventually(lambda: len(list(filter(None, idle(engine)))) == engine.turns(CPU).count)
    (work,) = of_seeds(bundle, 1)
    slow, expected = [replace(work, finish=take_a_second), work], engine.compute("digits", [work]).results
    writing = []
    with ThreadPoolExecutor() as threads:
        for _ in range(engine.turns(CPU).count):
            assert_equal_results(engine.compute("digits", [work]).results, expected)
            assert not any(future.done() for future in writing)
            free = Event()
            writing.append(threads.submit(engine.compute, "digits", slow, free.set))
            assert free.wait(10)
        assert_equal_results(engine.compute("digits", [work]).results, expected)
        assert writing[0].done()  # it has waited for the first to end
        for future in writing:
            assert_equal_results(future.result(10).results, 2 * expected)
    assert not ended
    eventually(lambda: len(idle(engine)) == engine.turns(CPU).count)


def assert_equal_results(results, expected):
    for result, each in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.value, each.value)


def take_a_second(pixels):
    time.sleep(1)
    return pixels


def test_what_ends_a_process_does_not_count_against_what_waits_in_it(running):
    engine, bundle, ended = running
    (work,) = of_seeds(bundle, 1)
    for _ in range(3):  # whichever of two processes each of them meets
        with ThreadPoolExecutor() as threads:
            free = Event()
            fatal = threads.submit(engine.compute, "digits", [replace(work, finish=end_soon), work], free.set)
            assert free.wait(10)
            behind = [threads.submit(engine.compute, "digits", [work]) for _ in range(2)]
            assert [result.error for future in behind for result in future.result(30).results] == [None, None]
            fails, neighbour = fatal.result(30).results
            assert isinstance(fails.error, ModelFailure)
            assert neighbour.error is None
    assert len(ended) == 12  # each process is told of once, whoever has met its end
    assert len(idle(engine)) == engine.turns(CPU).count


def end_soon(pixels):
    time.sleep(0.2)
    os.abort()


def end_the_process(pixels):
    os.abort()


def fail(pixels):
    raise Unpicklable(lambda: None)


class Unpicklable(Exception):
    pass


def test_what_fails_there_says_here_where(running):
    engine, bundle, _ = running
    (work,) = of_seeds(bundle, 1)
    (result,) = engine.compute("digits", [replace(work, finish=fail)]).results
    assert "Unpicklable" in str(result.error)
    (result,) = engine.compute("digits", [replace(work, finish=divide)]).results
    assert isinstance(result.error, ZeroDivisionError)
    assert "in divide" in "".join(result.error.__notes__)


def divide(pixels):
    return 1 // 0


def test_a_process_is_replaced_whatever_has_become_of_the_files(running, digits):
    engine, bundle, _ = running
    expected = engine.compute("digits", of_seeds(bundle, 1)).results[0].value
    (digits / GENERATOR_FILE).unlink()
    for process in idle(engine):
        os.kill(process.pid, signal.SIGKILL)
    np.testing.assert_array_equal(engine.compute("digits", of_seeds(bundle, 1)).results[0].value, expected)


def test_what_a_process_is_opened_with_does_not_change_while_it_is_pickled(plain, make_engine):
    engine = make_engine()
    bundle = Bundle.load(plain, engine=engine)
    (again,) = engine._opened.values()
    before = pickle.dumps(again)
    assert bundle.manifest.digest  # which the manifest keeps
    assert pickle.dumps(again) == before


def test_a_graph_that_ends_the_process_is_refused(plain, make_engine, monkeypatch):
    monkeypatch.setattr("service.process.COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    with pytest.raises(InvalidBundle, match="ends the process that tries it, by signal 6"):
        Bundle.load(plain, engine=make_engine())


def test_a_process_that_cannot_be_started_refuses_everything(plain, make_engine, monkeypatch):
    monkeypatch.setattr("service.process.COMMAND", (str(plain / "no-such-program"),))
    with pytest.raises(ModelFailure, match="SERVICE_PROCESSES=0 needs none"):
        Bundle.load(plain, engine=make_engine())


def test_with_one_process_less_than_was_asked_for_it_serves_all_the_same(digits, make_engine, monkeypatch):
    engine = make_engine(2)
    bundle = Bundle.load(digits, engine=engine)
    monkeypatch.setattr("service.process.COMMAND", (str(digits / "no-such-program"),))
    engine.start()
    results = [engine.compute("digits", of_seeds(bundle, seed)).results[0] for seed in range(4)]
    assert [result.error for result in results] == [None] * 4


def test_a_process_that_could_not_be_started_is_tried_again(digits, make_engine, monkeypatch, caplog):
    monkeypatch.setattr("service.processes.RETRY_SECONDS", 0.2)
    engine = make_engine(2)
    bundle = Bundle.load(digits, engine=engine)
    with monkeypatch.context() as patched:
        patched.setattr("service.process.COMMAND", (str(digits / "no-such-program"),))
        engine.start()
        deadline = time.monotonic() + 10
        while "one process less computes" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while len(idle(engine)) != 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    places = [engine._idle.get(block=False) for _ in range(2)]
    assert None in places  # one that has yet to be started
    for place in places:
        engine._idle.put(place)
    assert engine.compute("digits", of_seeds(bundle, 1)).results[0].error is None


def test_the_memory_of_a_trial_is_no_limit_of_later_batches(digits, make_engine):
    engine = make_engine(1, trial_bytes=2**30)
    bundle = Bundle.load(digits, engine=engine)
    (process,) = engine._running
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert re.search(r"Max address space +unlimited", limits)
    assert engine.compute("digits", of_seeds(bundle, 1)).results[0].error is None


def test_processes_without_work_sleep(running):
    engine, _, _ = running
    deadline = time.monotonic() + 30
    while {state(process.pid) for process in list(engine._running)} != {"S"}:
        assert time.monotonic() < deadline, "they look for work without end"
        time.sleep(0.1)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_nothing_is_left_running(plain, make_engine):
    engine = make_engine(2)
    Bundle.load(plain, engine=engine)
    engine.start()
    processes = idle(engine)
    engine.close()
    assert all(process._popen.returncode is not None for process in processes)


def test_the_service_tries_its_bundles(make_bundle, plain, serve):
    make_bundle("evil", graph=huge_constant())
    with serve(processes=1, trial_seconds=60, trial_bytes=2**28) as client:
        (refused,) = client.get("/models").json()["refused"]
        assert MEMORY in refused["reason"]
        assert 'ganery_bundle_up{model="evil"} 0.0' in client.get("/metrics").text
        assert client.post("/generate", json={"model": "plain"}).status_code == 200
        assert client.post("/generate", json={"model": "evil"}).status_code == 503


def test_a_process_for_each_cpu_but_one_for_a_gpu(monkeypatch):
    monkeypatch.setattr("service.processes.available_cpus", lambda: 3)
    assert [how_many(None, "cpu"), how_many(2, "cpu"), how_many(0, "cuda")] == [3, 2, 0]
    monkeypatch.setattr("service.processes.version", lambda name: "1.0")
    assert [how_many(None, "auto"), how_many(None, "cuda"), how_many(None, "cpu")] == [1, 1, 3]


def test_one_bundle_keeps_no_other_waiting(plain, digits, make_engine):
    """All have the same processes; what waits for one is served in the order in which it came."""
    engine = make_engine(1)
    busy, other = (Bundle.load(directory, engine=engine) for directory in (plain, digits))
    slow = Work(1, 64, TrialRows(1), take_a_moment)
    queued = [busy.batcher.submit(slow) for _ in range(600)]
    sample = other.sample(seed=1, class_=0)
    for _ in range(3):
        done = sum(future.done() for future in queued)
        other.batcher.submit(other.work([sample], keep)).result(30)
        assert sum(future.done() for future in queued) - done <= 3 * busy.batcher.max_rows
    assert not queued[-1].done()
    assert other.batcher.wait_seconds == 0
    for bundle in (busy, other):
        bundle.batcher.close()


def take_a_moment(pixels):
    time.sleep(0.005)
    return pixels


@pytest.mark.parametrize("size", [0, 2**20], ids=["small", "more than its socket holds"])
def test_a_process_that_hangs_is_replaced_and_its_batch_computed_again(digits, make_engine, size):
    engine = make_engine(1, stall_seconds=1)
    bundle = Bundle.load(digits, engine=engine)
    (process,) = engine._running
    os.kill(process.pid, signal.SIGSTOP)
    (work,) = of_seeds(bundle, 1)
    (result,) = engine.compute("digits", [replace(work, finish=partial(keep_beside, bytes(size)))]).results
    assert result.error is None
    assert process not in engine._running


def keep_beside(load, pixels):
    return pixels
