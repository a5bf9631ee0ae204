from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from service.batcher import Batcher, QueueLimits
from service.errors import Overloaded
from service.pieces import Pieces
from service.turns import Turns
from service.work import Work, compute


class Numbers:
    """A generator whose picture is its row's number."""

    def run(self, feed):
        return feed["n"]

    def padding(self, rows):
        return 0


def number(n):
    return Work(1, 1, lambda _: {"n": np.array([n])}, lambda pixels: pixels.tolist())


@pytest.fixture
def batcher():
    batcher = Batcher(partial(compute, Numbers()), turns=Turns(2), limits=QueueLimits(bulk_streams=1))
    yield batcher
    batcher.close()


def test_pieces_come_in_order_and_few_at_a_time(batcher):
    asked = []

    def works():
        for n in range(50):
            asked.append(n)
            yield number(n)

    for n, piece in enumerate(Pieces(batcher, works())):
        assert piece == [n]
        assert len(asked) <= n + 2 * batcher.runners + 1


def test_a_place_is_taken_by_the_first_piece_and_given_back_at_the_end(batcher):
    idle, busy = (Pieces(batcher, map(number, range(2))) for _ in range(2))
    next(busy)
    with pytest.raises(Overloaded, match="1 long answers"):
        next(idle)
    assert list(busy) == [[1]]
    with pytest.raises(Overloaded):  # what was made of it has yet to be sent
        next(Pieces(batcher, [number(7)]))
    busy.close()
    assert list(Pieces(batcher, [number(7)])) == [[7]]


def test_who_finds_no_place_has_made_nothing(batcher):
    next(taken := Pieces(batcher, [number(1)]))

    def works():
        raise AssertionError("hundreds of latents are drawn here")
        yield

    with pytest.raises(Overloaded):
        next(Pieces(batcher, works()))
    taken.close()


def test_closing_gives_the_place_back_once(batcher):
    pieces = Pieces(batcher, map(number, range(9)))
    next(pieces)
    pieces.close()
    pieces.close()
    with pytest.raises(CancelledError):
        next(pieces)
    Pieces(batcher, []).close()  # which has taken none
    next(Pieces(batcher, [number(1), number(2)]))
    with pytest.raises(Overloaded):
        next(Pieces(batcher, [number(3)]))


def test_closing_wakes_whoever_waits_for_a_piece(plain_bundle, gate):
    batcher = plain_bundle.batcher

    def work():
        return plain_bundle.work([plain_bundle.sample(seed=1)] * plain_bundle.rows_per_batch, lambda pixels: 1)

    pieces = Pieces(batcher, (work() for _ in range(100)))
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(list, pieces)
        for _ in range(batcher.runners):
            assert gate.reached.acquire(timeout=30)
        pieces.close()
        gate.opened.set()
        with pytest.raises(CancelledError):
            waiting.result(30)
    assert len(gate.rows) == batcher.runners


def test_a_place_is_kept_while_something_is_made_whoever_closes(batcher):
    pieces = Pieces(batcher, map(number, range(3)))
    with pieces.kept():
        assert list(pieces) == [[0], [1], [2]]
        pieces.close()
        with pytest.raises(Overloaded):
            next(Pieces(batcher, [number(3)]))
    assert next(Pieces(batcher, [number(3)])) == [3]
