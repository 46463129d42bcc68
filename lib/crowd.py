"""Threads for everybody: however many registries hang at once, some are left for the rest.

The web server has so many threads, and a request that waits for a registry, for another request's answer or for the log holds
one; so does a blob that is passed through, for as long as its client likes. `lib/upstream/bulkhead.py` bounds what one
registry holds; here it is bounded for all of them together, by the registered domain of the registry that a client names
(`lib/domain.py`), because names below one domain are free:

    in all          15/16 of the threads, at least 88: the rest is for /livez, /v2/ and /sightings
    of one domain   3/4, or as many as its registry's own places and line hold, if that is more
    of strangers    3/8, at least 16, all together: domains that did not answer this process quickly, or not since they stalled
    streams         1/2, at least 16, of all domains together

So with few threads none is kept free: there a burst on one healthy registry is more likely than several that hang, and
waits for its turn at the web server.

A domain stalls if somebody is inside and nobody was answered for `STALL_S`. Beyond a limit the answer is immediate: nobody
queues here. What is left to a registry that answers first and hangs then is `STALL_S`. Not here: how long one call may take
(`lib/upstream/limits.py`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STALL_S = 3.0  # seconds, as `Limits.stall_s`: longer than tokens and handshakes take
KNOWN = 1024  # domains remembered as answering
FEWEST = 16  # of strangers, and streams: a small cluster's burst on a registry that was not asked before
ONE = 88  # of one domain: `Limits.calls` and `Limits.waiting` of one registry


@dataclass(slots=True)
class _Room:
    """Who waits. `since`: when the first one came in, or somebody was last answered."""

    since: float
    waiting: int = 0


class Visit:
    """One request's place. `leave` may be called more than once; nothing else after it."""

    __slots__ = ("_crowd", "_domain", "_entered", "_inside", "_streams")

    def __init__(self, crowd: Crowd, domain: str, entered: float) -> None:
        """Only `Crowd.enter` makes these."""
        self._crowd = crowd
        self._domain = domain
        self._entered = entered
        self._inside = True
        self._streams = False

    def answered(self) -> None:
        """The registry answered, whatever it said, and though its bytes may be still to come."""
        self._crowd.moved(self._domain, self._entered)

    def stream(self) -> None:
        """From here on bytes are passed through. Raises Overloaded."""
        self._crowd.stream(self._domain)
        self._streams = True

    def leave(self) -> None:
        """The thread goes on to others."""
        if self._inside:
            self._inside = False
            self._crowd.left(None if self._streams else self._domain)


class Crowd:
    """The threads of one process. Safe from any thread."""

    def __init__(self, threads: int, clock: Callable[[], float], known: Iterable[str] = ()) -> None:
        """`clock` is monotonic, in seconds; `known` are domains that are no strangers to begin with."""
        self._clock = clock
        self._in_all = max(min(ONE, threads), threads - threads // 16)
        self._of_one = max(ONE, threads - threads // 4)
        self._of_strangers = max(FEWEST, threads * 3 // 8)
        self._of_streams = max(FEWEST, threads // 2)
        self._lock = threading.Lock()
        self._inside = 0
        self._streams = 0
        self._rooms: dict[str, _Room] = {}
        self._known = OrderedDict.fromkeys(known)

    def enter(self, domain: str) -> Visit:
        """Let a request in. Raises Overloaded."""
        now = self._clock()
        with self._lock:
            room = self._rooms.get(domain)
            if self._inside >= self._in_all or (room is not None and room.waiting >= self._of_one):
                msg = "too many requests are waiting for registries"
                raise Overloaded(msg)
            if self._is_stranger(domain, room, now) and self._strangers(now) >= self._of_strangers:
                what = "has not answered here lately" if room is None else "does not answer"
                msg = f"too many requests are waiting for registries, and {domain} {what}"
                raise Overloaded(msg)
            if room is None:
                room = self._rooms[domain] = _Room(now)
            room.waiting += 1
            self._inside += 1
        return Visit(self, domain, now)

    def _is_stranger(self, domain: str, room: _Room | None, now: float) -> bool:
        return domain not in self._known or (room is not None and now - room.since > STALL_S)

    def _strangers(self, now: float) -> int:
        """How many of them wait; there are no more rooms than threads."""
        return sum(room.waiting for domain, room in self._rooms.items() if self._is_stranger(domain, room, now))

    def moved(self, domain: str, entered: float) -> None:
        """What `Visit.answered` calls: one who got an answer after a long time is no sign that the next one will."""
        now = self._clock()
        with self._lock:
            if now - entered < STALL_S:
                self._rooms[domain].since = now
                self._known[domain] = None
                self._known.move_to_end(domain)
                while len(self._known) > KNOWN:
                    self._known.popitem(last=False)

    def stream(self, domain: str) -> None:
        """What `Visit.stream` calls: this one waits for nobody any more, and may take long."""
        with self._lock:
            if self._streams >= self._of_streams:
                msg = "too many blobs are being passed through"
                raise Overloaded(msg)
            self._streams += 1
            self._waits_no_more(domain)

    def left(self, waited_for: str | None) -> None:
        """What `Visit.leave` calls; None: it was a stream."""
        with self._lock:
            self._inside -= 1
            if waited_for is None:
                self._streams -= 1
            else:
                self._waits_no_more(waited_for)

    def _waits_no_more(self, domain: str) -> None:
        room = self._rooms[domain]
        room.waiting -= 1
        if room.waiting == 0:
            del self._rooms[domain]
            if self._clock() - room.since > STALL_S:
                self._known.pop(domain, None)
