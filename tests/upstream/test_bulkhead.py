"""Places for each upstream."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.config import BaseUrl
from lib.errors import DeadlineExceeded, Overloaded
from lib.upstream.bulkhead import Bulkhead
from tests.upstream.support import soon

HERE = BaseUrl("https", "reg.example", 443)
THERE = BaseUrl("https", "other.example", 443)


def test_places_are_counted_for_each_upstream() -> None:
    bulkhead = Bulkhead(limit=2, waiting=0)
    with bulkhead.enter(HERE, soon()), bulkhead.enter(HERE, soon()):
        with pytest.raises(Overloaded, match=r"waiting for reg\.example"):
            bulkhead.enter(HERE, soon())
        bulkhead.enter(THERE, soon()).release()
    bulkhead.enter(HERE, soon()).release()


def test_a_place_is_released_once() -> None:
    bulkhead = Bulkhead(limit=1, waiting=0)
    with bulkhead.enter(HERE, soon()) as place:
        place.release()
        place.release()
        with bulkhead.enter(HERE, soon()), pytest.raises(Overloaded):
            bulkhead.enter(HERE, soon())
    bulkhead.enter(HERE, soon()).release()


def test_waiting_ends_with_the_deadline() -> None:
    bulkhead = Bulkhead(limit=1, waiting=1)
    with bulkhead.enter(HERE, soon()):
        with pytest.raises(DeadlineExceeded):
            bulkhead.enter(HERE, soon(0.1))
        with pytest.raises(DeadlineExceeded):  # the one before left the waiting room
            bulkhead.enter(HERE, soon(0.0))


def test_a_place_that_comes_free_goes_to_one_who_waits() -> None:
    bulkhead = Bulkhead(limit=1, waiting=1)
    place = bulkhead.enter(HERE, soon())
    threading.Timer(0.05, place.release).start()
    bulkhead.enter(HERE, soon()).release()


def test_never_more_inside_than_places_and_nobody_is_forgotten() -> None:
    bulkhead = Bulkhead(limit=3, waiting=100)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with bulkhead.enter(HERE, soon()):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.001)
            inside.remove(number)

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(work, range(200)))
    assert len(most) == 200
    assert max(most) <= 3


def test_nobody_waits_for_an_upstream_that_hangs() -> None:
    bulkhead = Bulkhead(limit=2, waiting=1, stall_s=0.3)
    first, second = bulkhead.enter(HERE, soon()), bulkhead.enter(HERE, soon())
    with pytest.raises(Overloaded, match=r"reg\.example does not answer"):  # waits until that is clear
        bulkhead.enter(HERE, soon())
    with pytest.raises(Overloaded, match="does not answer"):  # from then on at once: there is no time to wait
        bulkhead.enter(HERE, soon(0.0))
    first.release()  # one that gave up is no answer
    third = bulkhead.enter(HERE, soon())
    with pytest.raises(Overloaded, match="does not answer"):
        bulkhead.enter(HERE, soon(0.0))
    third.release()  # one that was quick is
    with bulkhead.enter(HERE, soon()), pytest.raises(DeadlineExceeded):
        bulkhead.enter(HERE, soon(0.0))
    second.release()


def test_an_upstream_that_answers_slowly_but_steadily_does_not_hang() -> None:
    bulkhead = Bulkhead(limit=1, waiting=8, stall_s=0.5)

    def work(_: int) -> None:
        with bulkhead.enter(HERE, soon(20)):
            time.sleep(0.1)

    with ThreadPoolExecutor(9) as pool:
        list(pool.map(work, range(9)))  # the last waits for 0.8 s
