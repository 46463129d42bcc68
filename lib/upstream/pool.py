"""Kept connections. Bounded for each origin and in all; whatever looks used up is closed, not tried.

A connection to an origin that the deployer vouched for was made without checking its address, so it is kept apart: the
same name asked for by a stranger's registry must not find it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.config import BaseUrl
    from lib.upstream.connection import Connection
    from lib.upstream.limits import Limits


class Pool:
    """Idle connections by origin, latest first. Safe from any thread."""

    def __init__(self, clock: Callable[[], float], limits: Limits) -> None:
        """`clock` tells how long a connection was idle, in seconds."""
        self._clock = clock
        self._limits = limits
        self._lock = threading.Lock()
        self._idle: OrderedDict[tuple[BaseUrl, bool], list[Connection]] = OrderedDict()
        self._total = 0

    def take(self, origin: BaseUrl, *, vouched: bool) -> Connection | None:
        """A connection that is open as far as one can see, or None."""
        while True:
            with self._lock:
                kept = self._idle.get((origin, vouched))
                if not kept:
                    return None
                connection = kept.pop()
                self._total -= 1
                if not kept:
                    del self._idle[(origin, vouched)]
            if self._clock() - connection.idle_since < self._limits.idle_s and connection.quiet():
                return connection
            connection.close()

    def give(self, connection: Connection) -> None:
        """Keep a connection whose last answer was read to its end; closes the oldest if there are too many."""
        connection.idle_since = self._clock()
        key = (connection.origin, connection.vouched)
        surplus: list[Connection] = []
        with self._lock:
            kept = self._idle.setdefault(key, [])
            self._idle.move_to_end(key)
            kept.append(connection)
            self._total += 1
            if len(kept) > self._limits.idle:
                surplus.append(kept.pop(0))
                self._total -= 1
            while self._total > self._limits.idle_total:
                oldest_key, oldest = next(iter(self._idle.items()))
                surplus.append(oldest.pop(0))
                self._total -= 1
                if not oldest:
                    del self._idle[oldest_key]
        for old in surplus:
            old.close()

    def close(self) -> None:
        """Close all that are idle."""
        with self._lock:
            everything = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
            self._total = 0
        for connection in everything:
            connection.close()
