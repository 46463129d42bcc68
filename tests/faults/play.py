"""Runs the cells of the table, and keeps what came of each.

Cells of one service run beside each other where they do not disturb each other, which is nearly always: each has a tag of its
own, and a fault is done to the calls of one tag. Those that shut a whole service out (refused), or that all tags of a
process share (token, certificate), run one after the other. Killed: as many requests as there are cells are stopped each at its
own call, and one SIGKILL ends them all.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.gate import Reply, answers, hangs, last_of_all, lost, truncated
from tests.faults.table import KILLED, PASSING, REFUSED, STEPS, Cell, Step, cells
from tests.faults.world import FIRST, MOVED, Asked, Backend, Stand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from tests.faults.calls import Subject
    from tests.faults.gate import Act, Call
    from tests.faults.world import Store

DEADLINE_S = 3.0
SLOW_S = 12.0  # the deadline on a machine that takes a good part of the other one for a request in which nothing fails
GOOD_PART = 0.3
PATIENT_S = 30.0  # the deadline of those that are to be killed before it
AT_ONCE = 8  # cells
REACH_S = 25.0  # until a request has got as far as its step
PATIENCE = 3  # times that a slow machine may miss the deadline although nothing fails
WARM_UP = 30  # times, at first: the emulator's first answers take seconds
PREPARED = 10  # tries to get a tag into the state that a cell begins with
SAMPLE = 4  # first sightings beside each other, which tell how slow the machine is
HTML = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body>We are down.</body></html>"


@dataclass
class Outcome:
    """What was answered: while the fault was there, when it was over, and when the tag was back where it had been."""

    cell: Cell
    subject: Subject
    reached: bool = False
    during: Asked | None = None
    after: Asked | None = None
    back: Asked | None = None
    slow: int = 0


@dataclass
class Outcomes:
    """Of all cells with one store. `undisturbed` is by state and helper; `whole_log` is read when everything has ended."""

    store: Store
    seconds: float = 0.0
    deadline_s: float = DEADLINE_S
    by_cell: dict[Cell, Outcome] = field(default_factory=dict)
    undisturbed: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)  # (gate, call) in order
    whole_log: dict[str, set[str]] = field(default_factory=dict)


class Player:
    """Plays on one backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.outcomes = Outcomes(backend.store)
        self._all = cells(backend.store)
        self._lock = threading.Lock()

    def play(self) -> None:
        """Everything."""
        with self._stand("tags") as stand:
            together(lambda: self._tags(stand), self._process)
        self._killed()

    @contextmanager
    def _stand(self, name: str) -> Iterator[Stand]:
        """A service that has answered already, with a deadline that this machine can keep."""
        for deadline_s in (DEADLINE_S, SLOW_S):
            with Stand(self.backend, f"{name}-{deadline_s:.0f}", deadline_s=deadline_s) as stand:
                patiently(stand, self.backend.subject(f"warm-{deadline_s:.0f}"), times=WARM_UP)
                sample = [self.backend.subject(f"sample-{deadline_s:.0f}-{number}") for number in range(SAMPLE)]
                with ThreadPoolExecutor(SAMPLE) as pool:
                    slowest = max(asked.seconds for asked in pool.map(stand.ask, sample))
                if slowest < deadline_s * GOOD_PART or deadline_s == SLOW_S:
                    self.outcomes.deadline_s = deadline_s
                    yield stand
                    return

    # Cells of tags

    def _tags(self, stand: Stand) -> None:
        mine = [cell for cell in self._all if not cell.step.of_the_process]
        for step in (step for step in STEPS if not step.of_the_process):
            if (step.before, helper_of(step)) not in self.outcomes.undisturbed:
                self._undisturbed(stand, step)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda cell: self._one(stand, cell), [c for c in mine if c.fault in PASSING]))
        for cell in (c for c in mine if c.fault in REFUSED):
            self._one(stand, cell)

    def _undisturbed(self, stand: Stand, step: Step) -> None:
        """Which calls a request makes when nothing fails."""
        subject = self.backend.subject(f"undisturbed-{step.before}-{helper_of(step) or 'plain'}")
        prepare(stand, subject, step)
        assert patiently(stand, subject, times=PREPARED).digest == FIRST
        self.outcomes.undisturbed[step.before, helper_of(step)] = subject.calls

    def _one(self, stand: Stand, cell: Cell) -> None:
        outcome = self._outcome(cell)
        subject = outcome.subject
        prepare(stand, subject, cell.step)
        released = threading.Event()
        self._disturb(stand, subject, cell, released)
        self._ask_until_it_fails(stand, outcome, subject)
        self._heal(stand, subject, released)
        self._afterwards(stand, outcome)

    def _ask_until_it_fails(self, stand: Stand, outcome: Outcome, subject: Subject) -> None:
        """The one request, or another, if the machine was so slow that the first did not come as far as the step."""
        for _ in range(PATIENCE):
            outcome.during = stand.ask(outcome.subject)
            outcome.reached = outcome.cell.fault == "refused" or subject.reached(kind_of(outcome.cell.step))
            if outcome.reached or outcome.during.seconds < stand.deadline_s:
                break
            outcome.slow += 1

    def _disturb(self, stand: Stand, subject: Subject, cell: Cell, released: threading.Event) -> None:
        if cell.fault != "refused":
            subject.rules[kind_of(cell.step)] = act_of(cell, released)
            return
        gate = cell.step.gate
        calls = self.outcomes.undisturbed.get((cell.step.before, helper_of(cell.step)), [])
        here = [
            kind for where, kind in calls if where == gate and kind != "copy"
        ]  # which comes before or after the append
        before = here[: here.index(kind_of(cell.step))] if kind_of(cell.step) in here else []
        if before:
            redirect = redirection(subject) if cell.step.name == "redirected" else None
            subject.once[before[-1], before.count(before[-1])] = last_of_all(redirect)
        else:
            stand.gates[gate].down()

    def _heal(self, stand: Stand, subject: Subject, released: threading.Event) -> None:
        subject.rules.clear()
        subject.once.clear()
        helper(subject, None)
        released.set()
        for gate in stand.gates.values():
            gate.up()

    def _afterwards(self, stand: Stand, outcome: Outcome) -> None:
        """The next request, and, of a tag that has moved, one when it is back."""
        if not outcome.cell.moves:
            outcome.after = patiently(stand, outcome.subject, outcome)
            return
        self.backend.move(outcome.subject, MOVED)
        outcome.after = patiently(stand, outcome.subject, outcome)
        self.backend.move(outcome.subject, FIRST)
        outcome.back = patiently(stand, outcome.subject, outcome)

    # Cells of a process

    def _process(self) -> None:
        """One service, whose processes never get a certificate until all faults are over.

        A tag that stays, and one that moves, wait for it together.
        """
        mine = [cell for cell in self._all if cell.step.of_the_process]
        outcomes = [self._outcome(cell) for cell in mine]
        with Stand(self.backend, "process", deadline_s=self.outcomes.deadline_s) as stand:
            self._warm_but_for_a_certificate(stand)
            for step, fault in dict.fromkeys((cell.step, cell.fault) for cell in mine):
                both = [one for one in outcomes if (one.cell.step, one.cell.fault) == (step, fault)]
                stand.alone = self.backend.subject(f"all-that-wait-for-{both[0].cell}")
                if fault in KILLED:
                    self._kill_worker(stand, both, stand.alone)
                else:
                    self._fail(stand, both, stand.alone)
            stand.alone = None
            for outcome in outcomes:
                self._afterwards(stand, outcome)

    def _warm_but_for_a_certificate(self, stand: Stand) -> None:
        stand.alone = self.backend.subject("all-that-wait-for-warmth")
        stand.alone.rules["identity"] = answers(404)
        warm = self.backend.subject("warm-process")
        assert any(stand.ask(warm) and stand.alone.reached("identity") for _ in range(WARM_UP))

    def _fail(self, stand: Stand, both: list[Outcome], alone: Subject) -> None:
        cell, released = both[0].cell, threading.Event()
        self._disturb(stand, alone, cell, released)
        with ThreadPoolExecutor(len(both)) as pool:
            list(pool.map(lambda one: self._ask_until_it_fails(stand, one, alone), both))
        self._heal(stand, alone, released)

    # Killed

    def _killed(self) -> None:
        """All at once, each at its own call."""
        mine = [cell for cell in self._all if cell.fault in KILLED and not cell.step.of_the_process]
        with Stand(self.backend, "killed", deadline_s=PATIENT_S) as stand:
            patiently(stand, self.backend.subject("warm-killed"), times=WARM_UP)
            outcomes = [self._outcome(cell) for cell in mine]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda one: prepare(stand, one.subject, one.cell.step), outcomes))
            self._kill(stand, outcomes)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda one: self._afterwards(stand, one), outcomes))

    def _kill(self, stand: Stand, outcomes: list[Outcome]) -> None:
        """Ask for all, wait until each is at its step, SIGKILL, and the next start.

        Those that are held in the store come last: a call to it has a limit of its own, long before the deadline.
        """
        released = threading.Event()
        held: list[tuple[Outcome, threading.Event, Future[Asked]]] = []
        with ThreadPoolExecutor(len(outcomes)) as pool:
            for in_store in (False, True):
                for outcome in (one for one in outcomes if (one.cell.step.gate == "store") is in_store):
                    at = threading.Event()
                    outcome.subject.rules[kind_of(outcome.cell.step)] = holds(outcome.cell, at, released)
                    held.append((outcome, at, pool.submit(stand.ask, outcome.subject)))
                until = time.monotonic() + REACH_S
                for outcome, at, _ in held:
                    outcome.reached = at.wait(max(0.0, until - time.monotonic()))
            stand.kill()
            released.set()
            for outcome, _, answer in held:
                outcome.during = answer.result()
                self._heal(stand, outcome.subject, released)
        stand.start()

    def _kill_worker(self, stand: Stand, both: list[Outcome], alone: Subject) -> None:
        """The same for those who wait for one call, and for the worker alone: the server, which goes on, starts another."""
        at, released = threading.Event(), threading.Event()
        alone.rules[kind_of(both[0].cell.step)] = holds(both[0].cell, at, released)
        with ThreadPoolExecutor(len(both)) as pool:
            asking = [pool.submit(stand.ask, one.subject) for one in both]
            reached = at.wait(REACH_S) and all(one.subject.reached("index", REACH_S) for one in both)
            stand.kill_worker()
            for outcome, answer in zip(both, asking, strict=True):
                outcome.reached, outcome.during = reached, answer.result()
        self._heal(stand, alone, released)

    def _outcome(self, cell: Cell) -> Outcome:
        outcome = Outcome(cell, self.backend.subject(str(cell)))
        with self._lock:
            self.outcomes.by_cell[cell] = outcome
        return outcome


def kind_of(step: Step) -> str:
    """The call as `calls.py` names it."""
    return step.name


def helper_of(step: Step) -> str:
    """What a registry or another instance does beside, so that the step is reached."""
    return step.name if step.name in {"redirected", "winner"} else ""


def helper(subject: Subject, step: Step | None) -> None:
    if step is None:
        subject.rules.pop("manifest", None)
    elif step.name == "redirected":
        subject.rules["manifest"] = lambda call: call.reply(redirection(subject))
    elif step.name == "winner":
        subject.once["put_sighting", 1] = lost  # it is created again, and found to be there


def redirection(subject: Subject) -> Reply:
    return Reply(307, [("Location", f"/storage/{subject.repository}/manifests/v1")], b"")


def prepare(stand: Stand, subject: Subject, step: Step) -> None:
    """What is there for the tag when the request comes: nothing, its record, a claim only, or a log entry as well."""
    if step.before != "new":
        want, call = {"recorded": (200, None), "claimed": (503, "index"), "logged": (503, "append")}[step.before]
        if call is not None:
            subject.rules[call] = answers(500) if call == "index" else lost
        assert any(
            stand.ask(subject).status == want and (call is None or subject.reached(call)) for _ in range(PREPARED)
        ), f"{subject.reference} could not be prepared"
        subject.rules.clear()
    subject.begin()
    helper(subject, step)


def act_of(cell: Cell, released: threading.Event) -> Act:
    match cell.fault:
        case "hang":
            return hangs(released)
        case "500":
            return answers(500, b'{"code": 500, "message": "internal"}')
        case "429":
            return answers(429, b"{}", **{"Retry-After": "7"})
        case "html":
            return answers(cell.step.good, HTML, **{"Content-Type": "text/html"})
        case "truncated":
            return truncated
        case "lost":
            return lost
        case _:
            raise AssertionError(cell.fault)


def holds(cell: Cell, at: threading.Event, released: threading.Event) -> Act:
    """Stops the call before it is done, or when it has been done, until the service has been killed."""

    def hold(call: Call) -> None:
        if cell.fault == "killed after":
            call.forward()
        at.set()
        released.wait()
        call.cut()

    return hold


def patiently(stand: Stand, subject: Subject, outcome: Outcome | None = None, times: int = PATIENCE) -> Asked:
    """An answer where nothing fails: again if the machine, not the service, was too slow for the deadline."""
    while True:
        asked = stand.ask(subject)
        times -= 1
        if asked.status != 503 or asked.seconds < stand.deadline_s or not times:
            return asked
        if outcome is not None:
            outcome.slow += 1


def together(*work: Callable[[], None]) -> None:
    """Beside each other; the first failure is raised."""
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(one) for one in work]:
            done.result()
