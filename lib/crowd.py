"""Threads for everybody: however many registries hang at once, some are left for the rest.

The web server has so many threads, and a request that waits for a registry, for another request's answer or for the log holds
one; so does whatever is sent to a client, for as long as that client likes. `lib/upstream/bulkhead.py` bounds what one
registry holds; here it is bounded for all of them together, by the registered domain of the registry that a client names
(`lib/domain.py`), because names below one domain are free. Some domains are *kept* for: the deployer's and the big ones,
whose names no stranger can point anywhere. With T threads:

    in all              15/16 T, at least 88: the rest is for /livez, /v2/ and /sightings
    all but those who wait for the kept
                        1/4 T less than that, at least 16: so many places only the kept can have
    of the others       waiting and streams: 1/2 T, at least 16, all together; 3/8 T, at least 16, for one domain
    of one kept domain  waiting: 3/4 T, or as many as its registry's own places and line hold, if that is more
    of strangers        waiting: 3/8 T, at least 16, of the kept and of the others each: domains that did not answer this
                        process quickly, or not since they stalled; 3/4 T for a mapped one that was not asked yet
    streams             1/2 T, at least 16, all together; half of them from one domain, and 5/8 of them to one client; but
                        32, or 4/5 of them if that is less, if it is more
    waiting for the log as `Recorder` allows, and no domain's

So with few threads none is kept free of the kept: there a burst on one healthy registry is more likely than several that hang,
and waits for its turn at the web server. And with 16 none is kept for them.

A domain stalls if somebody waits for it and nobody was answered for `STALL_S`. That can be feigned, by a domain that answers
one request and hangs the next; so the shares of the others hold however well they behave. Beyond a limit the answer is
immediate: nobody queues here. Not here: how long one call may take (`lib/upstream/limits.py`).
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STALL_S = 3.0  # seconds, as `Limits.stall_s`: longer than tokens and handshakes take
KNOWN = 1024  # domains remembered as answering
FEWEST = 16  # of every share: a small cluster's burst on a registry that was not asked before
ONE = 88  # of one kept domain: `Limits.calls` and `Limits.waiting` of one registry
STREAMS = 32  # of one registry, and to one client: `Limits.streams`, so that a burst on a healthy one waits there for its turn
ANYBODYS = frozenset({"amazonaws.com"})  # big, and not kept for: whoever rents a machine there has a name below it


@dataclass(slots=True)
class _Room:
    """Who is there because of one domain. `since`: when the first who waits came in, or somebody was last answered."""

    kept: bool
    since: float = 0.0
    waiting: int = 0
    streams: int = 0


class Visit:
    """One request's place. `leave` may be called more than once; nothing else after it."""

    __slots__ = ("_client", "_crowd", "_domain", "_entered", "_inside")

    def __init__(self, crowd: Crowd, domain: str, entered: float) -> None:
        """Only `Crowd.enter` makes these."""
        self._crowd = crowd
        self._domain = domain
        self._entered = entered
        self._inside = True
        self._client: str | None = None

    def answered(self) -> None:
        """The registry answered, whatever it said, and though its bytes may be still to come."""
        self._crowd.moved(self._domain, self._entered)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is waited for inside is not the registry, and no sign that it stalls. Raises Overloaded."""
        began = self._crowd.aside(self._domain)
        try:
            yield
        finally:
            self._entered += self._crowd.back(self._domain) - began

    def stream(self, client: str) -> None:
        """From here on bytes are sent to `client`. Raises Overloaded."""
        self._crowd.stream(self._domain, client)
        self._client = client

    def leave(self) -> None:
        """The thread goes on to others."""
        if self._inside:
            self._inside = False
            self._crowd.left(self._domain, self._client)


class Crowd:
    """The threads of one process. Safe from any thread."""

    def __init__(
        self, threads: int, clock: Callable[[], float], *, big: Iterable[str] = (), mapped: Iterable[str] = ()
    ) -> None:
        """`clock` is monotonic, in seconds. Places are kept for `big`, which are no strangers to begin with, and `mapped`."""
        big = frozenset(big) - ANYBODYS
        self._clock = clock
        self._in_all = max(min(ONE, threads), threads - threads // 16)
        self._not_for_kept = max(min(FEWEST, threads), self._in_all - threads // 4)
        self._of_others = max(FEWEST, threads // 2)
        self._of_one_other = max(FEWEST, threads * 3 // 8)
        self._of_one_kept = max(ONE, threads - threads // 4)
        self._of_strangers = max(FEWEST, threads * 3 // 8)
        self._of_unasked = max(FEWEST, threads * 3 // 4)
        self._of_streams = max(FEWEST, threads // 2)
        share = min(STREAMS, self._of_streams * 4 // 5)
        self._of_streams_from_one = max(share, self._of_streams // 2)
        self._of_streams_to_one = max(share, self._of_streams * 5 // 8)
        self._lock = threading.Lock()
        self._inside = 0
        self._for_kept = 0  # of those inside: who wait for one of the kept
        self._others = 0  # of those inside: who wait for another one, or stream from it
        self._streams = 0
        self._clients: Counter[str] = Counter()  # their streams
        self._rooms: dict[str, _Room] = {}
        self._kept = big.union(mapped)
        self._known = OrderedDict.fromkeys(big)
        self._unasked = set(mapped) - big

    def enter(self, domain: str) -> Visit:
        """Let a request in. Raises Overloaded."""
        now = self._clock()
        with self._lock:
            room = self._rooms.get(domain) or _Room(domain in self._kept)
            if self._is_full(room):
                msg = "too many requests are waiting for registries"
                raise Overloaded(msg)
            if self._is_stranger(domain, room, now) and self._strangers(room, now) >= self._share(domain, room, now):
                what = "does not answer" if room.waiting else "has not answered here lately"
                msg = f"too many requests are waiting for registries, and {domain} {what}"
                raise Overloaded(msg)
            self._inside += 1
            self._waits(domain, room, now)
        return Visit(self, domain, now)

    def _is_full(self, room: _Room) -> bool:
        """Whether nobody else may wait for that domain."""
        if self._inside >= self._in_all:
            return True
        if room.kept:
            return room.waiting >= self._of_one_kept
        return (
            self._no_more_but_for_kept()
            or self._others >= self._of_others
            or room.waiting + room.streams >= self._of_one_other
        )

    def _no_more_but_for_kept(self) -> bool:
        return self._inside - self._for_kept >= self._not_for_kept

    def _is_stranger(self, domain: str, room: _Room, now: float) -> bool:
        return domain not in self._known or self._stalls(room, now)

    def _stalls(self, room: _Room, now: float) -> bool:
        return room.waiting > 0 and now - room.since > STALL_S

    def _share(self, domain: str, room: _Room, now: float) -> int:
        """How many strangers there may be for this one to be let in."""
        return self._of_unasked if domain in self._unasked and not self._stalls(room, now) else self._of_strangers

    def _strangers(self, like: _Room, now: float) -> int:
        """How many of them wait, for the kept or for the others; there are no more rooms than threads."""
        rooms = self._rooms.items()
        return sum(r.waiting for name, r in rooms if r.kept == like.kept and self._is_stranger(name, r, now))

    def moved(self, domain: str, entered: float) -> None:
        """What `Visit.answered` calls: one who got an answer after a long time is no sign that the next one will."""
        now = self._clock()
        with self._lock:
            if now - entered < STALL_S:
                self._rooms[domain].since = now
                self._unasked.discard(domain)
                self._known[domain] = None
                self._known.move_to_end(domain)
                while len(self._known) > KNOWN:
                    self._known.popitem(last=False)

    def aside(self, domain: str) -> float:
        """What `Visit.aside` begins with: this one waits for no registry. Returns when that was."""
        with self._lock:
            room = self._rooms[domain]
            if room.kept and self._no_more_but_for_kept():
                msg = "too many requests are waiting for the log, for registries and for clients"
                raise Overloaded(msg)
            self._waits_no_more(domain, room)
        return self._clock()

    def back(self, domain: str) -> float:
        """What `Visit.aside` ends with; not refused, because `Recorder` bounds how many come at once. Returns when it was."""
        now = self._clock()
        with self._lock:
            self._waits(domain, self._rooms.get(domain) or _Room(domain in self._kept), now)
        return now

    def stream(self, domain: str, client: str) -> None:
        """What `Visit.stream` calls: this one waits for no registry any more, and may take long."""
        with self._lock:
            room = self._rooms[domain]
            if self._streams >= self._of_streams or (room.kept and self._no_more_but_for_kept()):
                msg = "too many blobs and large answers are being sent"
                raise Overloaded(msg)
            if room.streams >= self._of_streams_from_one:
                msg = f"too many blobs and large answers of {domain} are being sent"
                raise Overloaded(msg)
            if self._clients[client] >= self._of_streams_to_one:
                msg = "too many blobs and large answers are being sent to this client's address"
                raise Overloaded(msg)
            self._streams += 1
            self._clients[client] += 1
            room.streams += 1
            self._others += not room.kept
            self._waits_no_more(domain, room)

    def left(self, domain: str, client: str | None) -> None:
        """What `Visit.leave` calls; `client` is whom bytes were sent to, None if that was done at once."""
        with self._lock:
            room = self._rooms[domain]
            self._inside -= 1
            if client is None:
                self._waits_no_more(domain, room)
                return
            self._streams -= 1
            self._clients[client] -= 1
            if self._clients[client] == 0:
                del self._clients[client]
            room.streams -= 1
            self._others -= not room.kept
            self._close(domain, room)

    def _waits(self, domain: str, room: _Room, now: float) -> None:
        self._rooms[domain] = room
        if room.waiting == 0:
            room.since = now
        room.waiting += 1
        self._for_kept += room.kept
        self._others += not room.kept

    def _waits_no_more(self, domain: str, room: _Room) -> None:
        room.waiting -= 1
        self._for_kept -= room.kept
        self._others -= not room.kept
        if room.waiting == 0 and self._clock() - room.since > STALL_S:
            self._known.pop(domain, None)
            self._unasked.discard(domain)
        self._close(domain, room)

    def _close(self, domain: str, room: _Room) -> None:
        if room.waiting == room.streams == 0:
            del self._rooms[domain]
