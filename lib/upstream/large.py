"""Large answers: how many may be in memory at once, and how many documents may be parsed.

A parsed document takes up to forty times its bytes, and an upstream chooses them, so many at once would be more memory than
there is. Small answers (`LARGE_BYTES`) ask nobody. A larger one takes a place while it is read, one of few for each host, so
that no upstream takes them all; and documents that are longer than most (`PARSED_BYTES`) are parsed one at a time. That costs
nothing: json.loads holds the interpreter's lock anyway. Not here: how large a document may be at all (`oci/marks.py`).
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib.errors import DeadlineExceeded, Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib.deadline import Deadline

LARGE_BYTES = 256 * 1024  # an index of 1,000 manifests, or 10,000 tags
PARSED_BYTES = 16 * 1024  # most manifests are shorter
READ_AT_ONCE = 16  # of the longest, 8 MiB: 128 MiB
READ_AT_ONCE_OF_ONE_HOST = 8
WAIT_S = 3.0  # for a place; as for one of an upstream's (`Limits.stall_s`)


class Places:
    """So many places, of which one host has at most a share. Safe from any thread."""

    def __init__(self, places: int, of_one_host: int, wait_s: float) -> None:
        """Who finds none free waits, but not longer than `wait_s` seconds."""
        self._places = places
        self._of_one_host = of_one_host
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def enter(self, host: str, deadline: Deadline) -> Iterator[None]:
        """Hold a place. Raises Overloaded, DeadlineExceeded."""
        self._take(host, deadline)
        try:
            yield
        finally:
            with self._changed:
                self._taken[host] -= 1
                if not self._taken[host]:
                    del self._taken[host]
                self._changed.notify_all()

    def _take(self, host: str, deadline: Deadline) -> None:
        patience = deadline.clock() + self._wait_s
        with self._changed:
            while self._taken.total() >= self._places or self._taken[host] >= self._of_one_host:
                left = min(deadline.at, patience) - deadline.clock()
                if left <= 0.0:
                    raise _late(host, deadline)
                self._changed.wait(left)
            self._taken[host] += 1


def _late(host: str, deadline: Deadline) -> Overloaded | DeadlineExceeded:
    if deadline.passed():
        return DeadlineExceeded(f"out of time before the turn of the large answer of {host}")
    return Overloaded(f"too many other large answers are being read to read that of {host}")


# Of the process, as its memory is.
READING = Places(READ_AT_ONCE, READ_AT_ONCE_OF_ONE_HOST, WAIT_S)
PARSING = Places(1, 1, math.inf)
