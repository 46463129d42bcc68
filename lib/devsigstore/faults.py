"""Failing on purpose, as real services do: before the work, after it, too late or with half an answer; and counting.

log:before       an append is answered 500, nothing is logged
log:after        the entry is logged and found, but the answer is lost
log:late         the entry is logged, and the answer comes too late; like Rekor's, an entry whose request was given up
                 is never found
copy:before      as log:before, but only for the readable copy
copy:late        as log:late, but only for the readable copy
index:before     the search is answered 500
index:lossy      new entries are never found
retrieve:missing entries that the index names are not returned
set:bad          a signed entry timestamp that does not verify
proof:bad        an inclusion proof that does not verify
fulcio:before    500 instead of a certificate
fulcio:hang      no answer for a long time
metadata:before  500 instead of a token
delay:N          every call takes N milliseconds more
"""

from __future__ import annotations

import re
import threading
from collections import Counter

USER_FAULTS = frozenset({"log:before", "log:after", "log:late"})
FAULTS = USER_FAULTS | {
    "copy:before",
    "copy:late",
    "index:before",
    "index:lossy",
    "retrieve:missing",
    "set:bad",
    "proof:bad",
    "fulcio:before",
    "fulcio:hang",
    "metadata:before",
}
DELAY = re.compile(r"delay:([0-9]{1,5})", re.ASCII)
HOLD_S = 60.0  # seconds that `late` and `hang` take: longer than any client of ours waits


class Faults:
    """Which faults are on now. Safe from any thread."""

    def __init__(self, text: str = "", hold_s: float = HOLD_S) -> None:
        """`text` as in `set`; `hold_s` is how long an answer that comes too late takes, in seconds."""
        self._lock = threading.Condition()
        self._on: frozenset[str] = frozenset()
        self._delay_s = 0.0
        self._hold_s = hold_s
        self.set(text)

    def set(self, text: str) -> None:
        """Replace them by a comma list; empty for none. Raises ValueError for one that does not exist."""
        names = {name.strip() for name in text.split(",") if name.strip()}
        delays = [match for name in names if (match := DELAY.fullmatch(name))]
        unknown = {name for name in names if not DELAY.fullmatch(name)} - FAULTS
        if unknown or len(delays) > 1:
            msg = f"no such fault: {', '.join(sorted(unknown)) or 'two delays'}"
            raise ValueError(msg)
        with self._lock:
            self._on = frozenset(names & FAULTS)
            self._delay_s = int(delays[0][1]) / 1000 if delays else 0.0
            self._lock.notify_all()

    def __contains__(self, name: str) -> bool:
        """Whether a fault is on."""
        return name in self._on

    def __str__(self) -> str:
        """The comma list."""
        return ",".join(sorted(self._on) + ([f"delay:{self._delay_s * 1000:.0f}"] if self._delay_s else []))

    @property
    def delay_s(self) -> float:
        """Seconds to add to every call."""
        return self._delay_s

    def hold(self, *names: str) -> bool:
        """Wait while one of these is on, at most the time that late answers take; whether one was on."""
        with self._lock:
            if not any(name in self._on for name in names):
                return False
            self._lock.wait_for(lambda: not any(name in self._on for name in names), self._hold_s)
            return True


class Calls(Counter[str]):
    """How often each kind of call came: append, copy, index, retrieve, read, certificate, metadata."""

    def __init__(self) -> None:
        """Start from nothing."""
        super().__init__()
        self._lock = threading.Lock()

    def add(self, kind: str) -> None:
        """Count one; from any thread, without losing any."""
        with self._lock:
            self[kind] += 1
