"""Places for each upstream, so that one that hangs cannot take them all.

A request takes one place for its whole conversation with an upstream: its token and redirect calls run under it, so no
request ever waits for a second place while it holds a first of the same kind. The waiting room is bounded in number and
by each request's deadline; beyond it the answer is immediate. It is closed while the upstream hangs, because who waits
holds a thread of the server: places and waiting room of one upstream together may be more than there are threads.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lib.errors import DeadlineExceeded, Overloaded
from lib.upstream.url import authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from lib.config import BaseUrl
    from lib.deadline import Deadline


@dataclass(slots=True)
class _Room:
    free: threading.Condition
    moved: float  # when somebody last came in or left
    taken: int = 0
    waiting: int = 0
    hangs: bool = False  # somebody waited in vain, and no request has been quick since


class Place:
    """One place; released once, by leaving the `with` block or earlier."""

    __slots__ = ("_bulkhead", "_clock", "_entered", "_held", "_origin")

    def __init__(self, bulkhead: Bulkhead, origin: BaseUrl, clock: Callable[[], float]) -> None:
        """Only `Bulkhead.enter` makes these."""
        self._bulkhead = bulkhead
        self._origin = origin
        self._clock = clock
        self._entered = clock()
        self._held = True

    def release(self) -> None:
        """Give the place to the next; may be called more than once."""
        if self._held:
            self._held = False
            self._bulkhead.leave(self._origin, self._entered, self._clock())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()


class Bulkhead:
    """`limit` places for each upstream and `waiting` who may wait for one. Idle upstreams take no memory."""

    def __init__(self, limit: int, waiting: int, stall_s: float = math.inf) -> None:
        """The first two are counts for one upstream. One that is full hangs if for `stall_s` seconds nobody leaves."""
        self._limit = limit
        self._waiting = waiting
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._rooms: dict[BaseUrl, _Room] = {}

    def enter(self, origin: BaseUrl, deadline: Deadline) -> Place:
        """Take a place, waiting for it within the deadline. Raises Overloaded, DeadlineExceeded."""
        with self._lock:
            room = self._rooms.get(origin)
            if room is None:
                room = self._rooms[origin] = _Room(threading.Condition(self._lock), deadline.clock())
            if room.taken >= self._limit:
                self._wait(room, origin, deadline)
            room.taken += 1
            room.moved = deadline.clock()
        return Place(self, origin, deadline.clock)

    def _wait(self, room: _Room, origin: BaseUrl, deadline: Deadline) -> None:
        if room.hangs:
            raise _hanging(origin)
        if room.waiting >= self._waiting:
            msg = f"too many requests are waiting for {authority(origin)}"
            raise Overloaded(msg)
        room.waiting += 1
        try:
            while room.taken >= self._limit:
                left = deadline.left()
                if left <= 0.0:
                    msg = f"out of time while waiting for other requests to {authority(origin)}"
                    raise DeadlineExceeded(msg)
                patience = room.moved + self._stall_s - deadline.clock()
                if patience <= 0.0:
                    room.hangs = True
                    raise _hanging(origin)
                room.free.wait(min(left, patience))
        finally:
            room.waiting -= 1

    def leave(self, origin: BaseUrl, entered: float, now: float) -> None:
        """What `Place.release` calls."""
        with self._lock:
            room = self._rooms[origin]
            room.taken -= 1
            room.moved = now
            if now - entered < self._stall_s:  # not one that gave up: the upstream answers again
                room.hangs = False
            if room.waiting:
                room.free.notify()
            elif room.taken == 0:
                del self._rooms[origin]


def _hanging(origin: BaseUrl) -> Overloaded:
    return Overloaded(f"{authority(origin)} does not answer the requests that are waiting for it")
