"""Flights: concurrent requests for one thing are one call, and nobody loses an answer by it."""

from __future__ import annotations

import threading
import time

import pytest

from lib.deadline import Deadline
from lib.errors import DeadlineExceeded, NotFound, Overloaded, TlogistryError, UpstreamUnavailable
from lib.upstream.flight import Flights
from lib.upstream.limits import Limits

WAIT_S = 30.0


def soon(seconds: float = WAIT_S) -> Deadline:
    return Deadline.after(seconds, time.monotonic)


class Calls:
    """A call that waits until it is let go, and counts."""

    def __init__(self, outcome: TlogistryError | None = None) -> None:
        self.count = 0
        self.started = threading.Event()
        self.go = threading.Event()
        self._outcome = outcome
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.count += 1
            number = self.count
        self.started.set()
        assert self.go.wait(WAIT_S)
        if self._outcome is not None and number == 1:
            raise self._outcome
        return f"answer {number}"


class Askers:
    """Threads that all ask for one thing."""

    def __init__(self, flights: Flights[str], calls: Calls, count: int, deadline: Deadline) -> None:
        self.answers: list[str | TlogistryError] = []
        self._threads = [threading.Thread(target=self._ask, args=(flights, calls, deadline)) for _ in range(count)]

    def _ask(self, flights: Flights[str], calls: Calls, deadline: Deadline) -> None:
        try:
            self.answers.append(flights.share("key", calls, deadline))
        except TlogistryError as error:
            self.answers.append(error)

    def start(self, calls: Calls) -> None:
        """The first leads; the others come while its call is under way."""
        first, *others = self._threads
        first.start()
        assert calls.started.wait(WAIT_S)
        for thread in others:
            thread.start()

    def end(self) -> list[str | TlogistryError]:
        for thread in self._threads:
            thread.join(WAIT_S)
        return self.answers


def until_waiting(flights: Flights[str], count: int) -> None:
    """Until so many wait for the leader."""
    end = time.monotonic() + WAIT_S
    while flights.waiting("key") < count:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_those_who_come_meanwhile_share_the_answer() -> None:
    flights, calls = Flights[str](Limits(follow_s=WAIT_S)), Calls()
    askers = Askers(flights, calls, 9, soon())
    askers.start(calls)
    until_waiting(flights, 8)
    calls.go.set()
    assert askers.end() == ["answer 1"] * 9
    assert calls.count == 1
    assert flights.share("key", calls, soon()) == "answer 2", "nothing is kept"


def test_another_key_is_another_call() -> None:
    flights, calls = Flights[str](Limits(follow_s=WAIT_S)), Calls()
    askers = Askers(flights, calls, 1, soon())
    askers.start(calls)
    assert flights.share("other", lambda: "other", soon()) == "other"
    calls.go.set()
    assert askers.end() == ["answer 1"]


def test_an_answer_that_is_an_error_is_shared_and_is_no_ones_own_object() -> None:
    flights, calls = Flights[str](Limits(follow_s=WAIT_S)), Calls(NotFound("not there"))
    askers = Askers(flights, calls, 5, soon())
    askers.start(calls)
    until_waiting(flights, 4)
    calls.go.set()
    answers = askers.end()
    assert [(type(answer), str(answer)) for answer in answers] == [(NotFound, "not there")] * 5
    assert len({id(answer) for answer in answers}) == 5
    assert calls.count == 1


@pytest.mark.parametrize(
    "outcome", [DeadlineExceeded("mine"), Overloaded("my place")], ids=lambda error: type(error).__name__
)
def test_a_leader_whose_own_time_or_place_ran_out_costs_the_others_nothing(outcome: TlogistryError) -> None:
    flights, calls = Flights[str](Limits(follow_s=WAIT_S)), Calls(outcome)
    askers = Askers(flights, calls, 3, soon())
    askers.start(calls)
    until_waiting(flights, 2)
    calls.go.set()
    answers = askers.end()
    assert sum(isinstance(answer, str) for answer in answers) == 2
    assert outcome in answers


def test_a_leader_that_hangs_is_not_waited_for_longer_than_a_moment() -> None:
    flights, calls = Flights[str](Limits(follow_s=0.05)), Calls()
    askers = Askers(flights, calls, 1, soon())
    askers.start(calls)
    assert flights.share("key", lambda: "own answer", soon()) == "own answer"
    calls.go.set()
    assert askers.end() == ["answer 1"]


def test_a_slow_answer_costs_one_more_call_for_each_wait_and_not_one_for_everybody() -> None:
    """ghcr.io was seen to take more than 10 s under load (scarf-sh/gateway#35)."""
    flights, calls = Flights[str](Limits(follow_s=0.4)), Calls()
    askers = Askers(flights, calls, 20, soon())
    askers.start(calls)
    until_waiting(flights, 19)
    time.sleep(1.0)
    calls.go.set()
    answers = askers.end()
    assert 2 <= calls.count <= 4
    assert len(answers) == 20
    assert len(set(answers)) <= calls.count


def test_the_first_answer_is_everybodys_even_if_the_leader_still_hangs() -> None:
    flights, calls, quick = Flights[str](Limits(follow_s=0.4)), Calls(), Calls()
    leader, others = Askers(flights, calls, 1, soon()), Askers(flights, quick, 8, soon())
    leader.start(calls)
    quick.go.set()
    quick.started.set()  # nobody waits for the first of them
    others.start(quick)
    assert others.end() == ["answer 1"] * 8
    calls.go.set()
    assert leader.end() == ["answer 1"]


def test_only_so_many_wait_for_one_leader() -> None:
    flights, calls = Flights[str](Limits(follow_s=WAIT_S, followers=2)), Calls()
    askers = Askers(flights, calls, 3, soon())
    askers.start(calls)
    until_waiting(flights, 2)
    assert flights.share("key", lambda: "own answer", soon()) == "own answer"
    calls.go.set()
    assert askers.end() == ["answer 1"] * 3


def test_an_error_keeps_what_it_says_beside_its_message() -> None:
    error = UpstreamUnavailable("away", 7)
    again = error.again()
    assert again is not error
    assert (str(again), again.retry_after, type(again)) == ("away", 7, UpstreamUnavailable)
