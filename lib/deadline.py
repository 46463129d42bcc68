"""A point in time after which a request is given up, carried down as one budget.

Pure: the clock is handed in, so that tests own time. Every call to the outside takes the smaller of its own limit and
`left()`; per-read time-outs alone do not bound a server that drips a byte a second (docs/request-handling.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a monotonic clock, in seconds."""

    at: float
    clock: Callable[[], float]

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float]) -> Deadline:
        """`seconds` from now on `clock`."""
        return cls(clock() + seconds, clock)

    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock())

    def passed(self) -> bool:
        """Whether there is no time left."""
        return self.left() <= 0.0

    def check(self, doing: str) -> None:
        """Raise DeadlineExceeded, naming what was about to be done, if there is no time left."""
        if self.passed():
            msg = f"out of time before {doing}"
            raise DeadlineExceeded(msg)
