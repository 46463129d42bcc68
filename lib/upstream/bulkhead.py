"""Places for each upstream, so that one that hangs cannot take them all.

A request takes one place for its whole conversation with an upstream: its token and redirect calls run under it, so no
request ever waits for a second place while it holds a first of the same kind. The waiting room is bounded in number and
by each request's deadline; beyond it the answer is immediate.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lib.errors import DeadlineExceeded, Overloaded
from lib.upstream.url import authority

if TYPE_CHECKING:
    from types import TracebackType

    from lib.config import BaseUrl
    from lib.deadline import Deadline


@dataclass(slots=True)
class _Room:
    free: threading.Condition
    taken: int = 0
    waiting: int = 0


class Place:
    """One place; released once, by leaving the `with` block or earlier."""

    __slots__ = ("_bulkhead", "_held", "_origin")

    def __init__(self, bulkhead: Bulkhead, origin: BaseUrl) -> None:
        """Only `Bulkhead.enter` makes these."""
        self._bulkhead = bulkhead
        self._origin = origin
        self._held = True

    def release(self) -> None:
        """Give the place to the next; may be called more than once."""
        if self._held:
            self._held = False
            self._bulkhead.leave(self._origin)

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

    def __init__(self, limit: int, waiting: int) -> None:
        """Both are counts for one upstream."""
        self._limit = limit
        self._waiting = waiting
        self._lock = threading.Lock()
        self._rooms: dict[BaseUrl, _Room] = {}

    def enter(self, origin: BaseUrl, deadline: Deadline) -> Place:
        """Take a place, waiting for it within the deadline. Raises Overloaded, DeadlineExceeded."""
        with self._lock:
            room = self._rooms.get(origin)
            if room is None:
                room = self._rooms[origin] = _Room(threading.Condition(self._lock))
            if room.taken >= self._limit:
                self._wait(room, origin, deadline)
            room.taken += 1
        return Place(self, origin)

    def _wait(self, room: _Room, origin: BaseUrl, deadline: Deadline) -> None:
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
                room.free.wait(left)
        finally:
            room.waiting -= 1

    def leave(self, origin: BaseUrl) -> None:
        """What `Place.release` calls."""
        with self._lock:
            room = self._rooms[origin]
            room.taken -= 1
            if room.waiting:
                room.free.notify()
            elif room.taken == 0:
                del self._rooms[origin]
