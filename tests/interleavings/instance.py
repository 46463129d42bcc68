"""One instance of the service: the real `Recorder`, as a function from what its calls were answered to its next call.

A recorder knows only what it was answered, and reads no clock and starts no thread but through `Runtime`. So its position is
its *history*: the answers so far. To learn what it does next, a fresh `Recorder` is run from its start, on one thread, and
given those answers again; the first call beyond them stops it (`_Beyond`). Each history is run once, whatever the other
instances and the store do meanwhile: thousands of runs stand for millions of schedules. That this short cut says what
instances do that run through once, on threads of their own, is tested too (`live.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lib.deadline import Deadline
from lib.errors import RateLimited, Unavailable
from lib.recorder import Recorder, Same
from tests.interleavings.collaborators import DIGESTS, NUMBERS, TAG, TIME_S, TOO_LONG_S, Collaborators

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.recorder import Verdict
    from tests.interleavings.collaborators import Answer, Call

    Build = Callable[[Collaborators, int], Recorder]  # the int is the digest that the instance's first request observes

TOO_LATE: Answer = ("too late", None)  # answers nothing: before the next call the request's time runs out


def real(collaborators: Collaborators, observed: int) -> Recorder:
    """The recorder as it is."""
    return Recorder(
        store=collaborators,
        log=collaborators,
        signer=collaborators,
        verifier=collaborators,
        runtime=collaborators,
        telemetry=collaborators.telemetry,
    )


class Served(NamedTuple):
    """A verdict: 200 if `same`, else 403 with the entry of the log as evidence."""

    same: bool
    first_seen: bool
    log_index: int
    digest: int

    @classmethod
    def of(cls, verdict: Verdict) -> Served:
        sighting = verdict.sighting
        first = isinstance(verdict, Same) and verdict.first_seen
        return cls(isinstance(verdict, Same), first, sighting.log_index, NUMBERS[sighting.digest])


class Refused(NamedTuple):
    """503, could not tell; or 429, not admitted."""

    reason: str


Outcome = Served | Refused


class _Beyond(BaseException):
    """Stops a recorder where its history ends. No Exception: nothing on the way may take it for a failure."""

    def __init__(self, call: Call) -> None:
        self.call = call


class _Replay(Collaborators):
    """Answers from a history."""

    def __init__(self, history: tuple[Answer, ...]) -> None:
        super().__init__()
        self._answers = iter(history)
        self._next: Answer | None = None
        self._turn()

    def _turn(self) -> None:
        self._next = next(self._answers, None)
        while self._next is TOO_LATE:
            self.time += TOO_LONG_S
            self._next = next(self._answers, None)

    def ask(self, call: Call) -> Answer:
        answer = self._next
        if answer is None:
            raise _Beyond(call)
        self._turn()
        return answer


class Position:
    """Where an instance stands: before `call`, or at its end (None). `outcomes` are those of its requests so far."""

    __slots__ = ("_after", "_build", "answered", "call", "failures", "history", "late", "outcomes", "requests")

    def __init__(
        self, build: Build, requests: tuple[int, ...], history: tuple[Answer, ...] = (), answered: str = ""
    ) -> None:
        """`requests` are the digests that its requests observe, one after another; `answered` is the last call so far."""
        self._build = build
        self.answered = answered
        self._after: dict[Answer, Position] = {}
        self.requests = requests
        self.history = history
        self.late = TOO_LATE in history
        self.failures = sum(how in {"failed", "unexplained"} for how, _ in history)
        self.call: Call | None = None
        self.outcomes: tuple[Outcome, ...] = ()
        self._run()

    def after(self, answer: Answer) -> Position:
        """The position when the call has been answered, or, with TOO_LATE, when time has passed before it is made."""
        known = self._after.get(answer)
        if known is None:
            last = self.answered if answer is TOO_LATE or self.call is None else self.call[0]
            known = self._after[answer] = Position(self._build, self.requests, (*self.history, answer), last)
        return known

    def looked_last(self) -> bool:
        """Whether the last thing it was told is what is claimed, and the next thing it does is to append."""
        return self.call is not None and self.call[0] == "append" and self.answered == "claim"

    def _run(self) -> None:
        collaborators = _Replay(self.history)
        recorder = self._build(collaborators, self.requests[0])
        try:
            for observed in self.requests:
                deadline = Deadline.after(TIME_S, collaborators.now)
                self.outcomes += (observe(recorder, observed, deadline, collaborators.admit),)
        except _Beyond as beyond:
            self.call = beyond.call


def observe(recorder: Recorder, observed: int, deadline: Deadline, admit: Callable[[], None]) -> Outcome:
    """One request."""
    try:
        return Served.of(recorder.observe(TAG, DIGESTS[observed], deadline, admit))
    except (Unavailable, RateLimited) as error:
        return Refused(f"{type(error).__name__}: {error}")
