"""Flights: concurrent requests for one thing become one call, whose answer all of them get.

    leader      asks
    follower    waits for an answer; whenever nobody else has begun to ask for `Limits.follow_s`, one of them asks, too

The first answer is everybody's. So a leader that hangs, or whose own time runs out, costs the others a moment and not their
answer; and a slow registry gets one more call each `follow_s`, not one for everybody. An answer is shared only with those who
came while it was being fetched: nothing is kept here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from lib.errors import DeadlineExceeded, Overloaded, TlogistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from lib.deadline import Deadline
    from lib.upstream.limits import Limits

T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    """`done` is set last; without an answer and an error nobody who asked has something that others could use."""

    done: threading.Event = field(default_factory=threading.Event)
    followers: int = 0
    begun: int = 1  # calls
    out: int = 1  # of them
    answer: list[T] = field(default_factory=list)
    error: TlogistryError | None = None


class Flights(Generic[T]):
    """Calls that are under way, by what they ask for. Safe from any thread."""

    def __init__(self, limits: Limits) -> None:
        """`limits` says how many may wait for one call, and how long."""
        self._limits = limits
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight[T]] = {}

    def share(self, key: Hashable, call: Callable[[], T], deadline: Deadline) -> T:
        """The answer of `call`, ours or that of somebody who made it with the same key. Raises what it raises."""
        while True:
            with self._lock:
                flight = self._flights.get(key)
                if flight is not None and flight.followers >= self._limits.followers:
                    break
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
                else:
                    flight.followers += 1
            if leads or self._follow(flight, deadline):
                return self._ask(key, flight, call)
            if flight.answer:
                return flight.answer[0]
            if flight.error is not None:
                raise flight.error.again()
            if deadline.passed():
                break
        return call()

    def waiting(self, key: Hashable) -> int:
        """How many wait for the call with this key."""
        with self._lock:
            flight = self._flights.get(key)
            return flight.followers if flight is not None else 0

    def _follow(self, flight: _Flight[T], deadline: Deadline) -> bool:
        """Wait until the flight or our time is over, or, True, until it is our turn to ask."""
        with self._lock:
            begun = flight.begun
        while not flight.done.wait(max(0.0, min(self._limits.follow_s, deadline.left()))):
            if deadline.passed():
                return False
            with self._lock:
                if flight.begun == begun and flight.out:
                    flight.begun += 1
                    flight.out += 1
                    return True
                begun = flight.begun
        return False

    def _ask(self, key: Hashable, flight: _Flight[T], call: Callable[[], T]) -> T:
        try:
            answer = call()
        except (DeadlineExceeded, Overloaded):  # the asker's own time, or place in a line
            raise
        except TlogistryError as error:
            flight.error = error
            raise
        else:
            flight.answer.append(answer)
            return answer
        finally:
            with self._lock:
                flight.out -= 1
                over = flight.out == 0 or flight.answer or flight.error is not None
                if over and self._flights.get(key) is flight:
                    del self._flights[key]
            if over:
                flight.done.set()
