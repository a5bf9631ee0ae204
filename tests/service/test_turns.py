import threading
import time
from concurrent.futures import ThreadPoolExecutor

from service.turns import Turns


def test_who_waits_is_served_in_the_order_in_which_they_came(eventually):
    turns, served = Turns(1), []
    turns.take()

    def wait(number):
        turns.take()
        served.append(number)
        turns.give_back()

    with ThreadPoolExecutor() as threads:
        try:
            for number in range(4):
                threads.submit(wait, number)
                eventually(lambda number=number: len(turns._waiting) == number + 1)
        finally:
            turns.give_back()
    assert served == [0, 1, 2, 3]


def test_who_gives_a_turn_back_and_wants_another_one_waits_for_it():
    turns, stopped, taken = Turns(1), threading.Event(), []

    def again_and_again():
        while not stopped.is_set():
            turns.take()
            taken.append(time.sleep(0.01))
            turns.give_back()

    with ThreadPoolExecutor() as threads:
        threads.submit(again_and_again)
        try:
            while not taken:
                time.sleep(0.001)
            for _ in range(5):
                before = len(taken)
                turns.take()
                between = len(taken) - before
                turns.give_back()
                assert between <= 1
        finally:
            stopped.set()


def test_there_are_as_many_as_were_asked_for():
    turns = Turns(3)
    with ThreadPoolExecutor(1) as threads:
        for _ in range(3):
            turns.take()
        fourth = threads.submit(turns.take)
        waited = not fourth.done()
        turns.give_back()
        fourth.result(10)
    assert waited
