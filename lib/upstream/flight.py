"""Flights: concurrent requests for one thing become one call, whose answer all of them get.

    follower    waits for the leader's answer, for `Limits.follow_s` at most, and then asks for itself

So a leader that hangs, or whose own time runs out, costs the others a moment and not their answer; and whoever asks for
themselves meets the upstream's bulkhead like everybody else. An answer is shared only with those who came while it was being
fetched: nothing is kept here.
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
    """`done` is set last; without an answer and an error the leader has nothing that others could use."""

    done: threading.Event = field(default_factory=threading.Event)
    followers: int = 0
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
        with self._lock:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
            elif flight.followers >= self._limits.followers:
                flight = None
            else:
                flight.followers += 1
        if flight is None:
            return call()
        if leads:
            return self._lead(key, flight, call)
        flight.done.wait(max(0.0, min(self._limits.follow_s, deadline.left())))
        if flight.answer:
            return flight.answer[0]
        if flight.error is not None:
            raise flight.error.again()
        return call()

    def waiting(self, key: Hashable) -> int:
        """How many wait for the call with this key."""
        with self._lock:
            flight = self._flights.get(key)
            return flight.followers if flight is not None else 0

    def _lead(self, key: Hashable, flight: _Flight[T], call: Callable[[], T]) -> T:
        try:
            answer = call()
        except (DeadlineExceeded, Overloaded):  # the leader's own time, or place in a line
            raise
        except TlogistryError as error:
            flight.error = error
            raise
        else:
            flight.answer.append(answer)
            return answer
        finally:
            with self._lock:
                del self._flights[key]
            flight.done.set()
