"""Instances that run, one recorder each, its requests and its leads on threads of their own, before a real SQLite store.

A schedule that was walked in `world.py` is walked again with them, call by call, and must come to the same. This is what
the short cut of `instance.py` and the store of `world.py` are held to. The log is not a real one here either.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from lib.deadline import Deadline
from lib.store.sqlite import SqliteStore
from tests.interleavings.collaborators import DIGESTS, NUMBERS, TAG, TIME_S, TOO_LONG_S, Collaborators, Place
from tests.interleavings.instance import TOO_LATE, observe
from tests.interleavings.world import called, follow, start
from tests.seams import LONG_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.recorder import Recorder
    from tests.interleavings.collaborators import Answer, Call, Value
    from tests.interleavings.instance import Build, Outcome
    from tests.interleavings.world import Move, Rules, Sent, State

STORE = {"sighting", "put_sighting", "claim", "put_claim"}


class _Gone(BaseException):
    """Ends the threads of an instance that vanishes. No Exception: nothing on the way may take it for a failure."""


class Running(Collaborators):
    """One instance on its threads. Each of its calls stands still until it is answered."""

    def __init__(self, build: Build, requests: tuple[int, ...]) -> None:
        super().__init__()
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()
        self._gone = False
        self._threads: list[threading.Thread] = []
        self.outcomes: tuple[Outcome, ...] = ()
        recorder = build(self, requests[0])
        self.start("requests", lambda: self._requests(recorder, requests))

    def _requests(self, recorder: Recorder, requests: tuple[int, ...]) -> None:
        for observed in requests:
            self.outcomes += (observe(recorder, observed, Deadline.after(TIME_S, self.now), self.admit),)
        self._calls.put(None)

    def call(self) -> Call | None:
        """What it asks now; None: it has ended."""
        return self._calls.get(timeout=LONG_S)

    def ask(self, call: Call) -> Answer:
        if self._gone:
            raise _Gone
        self._calls.put(call)
        answer = self._answers.get(timeout=LONG_S)
        if answer is None:
            raise _Gone
        return answer

    def answer(self, answer: Answer, *, late: bool) -> None:
        """Let it go on. `late`: when it does, its request's time is over."""
        self.time += TOO_LONG_S if late else 0
        self._answers.put(answer)

    def vanish(self) -> None:
        self._gone = True
        self._answers.put(None)

    def start(self, name: str, work: Callable[[], None]) -> None:
        def until_gone() -> None:
            with suppress(_Gone):
                work()

        thread = threading.Thread(target=until_gone, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self, event: threading.Event, seconds: float) -> bool:  # noqa: ARG002 - as in the contract
        return event.wait(LONG_S)

    def join(self) -> None:
        """All its threads have ended."""
        for thread in self._threads:
            thread.join(LONG_S)
            assert not thread.is_alive()


class Stage:
    """Running instances, the store that they share, and the state that the world says all this is in."""

    def __init__(self, rules: Rules, instances: tuple[tuple[int, ...], ...], path: Path) -> None:
        self._rules = rules
        self._path = path
        self._store = SqliteStore(path)
        self._everybody: list[Running] = []
        self._enter(start(rules, *instances))

    def _enter(self, state: State) -> None:
        self._state = state
        self._running = []
        for slot in state.slots:
            assert slot is not None
            running = Running(self._rules.build, slot.position.requests)
            assert running.call() == slot.position.call
            self._running.append(running)
        self._everybody += self._running

    def play(self, trail: list[Move]) -> State:
        """Walk it; how it ends."""
        for step, move in enumerate(trail):
            state = follow(self._state, move, self._rules)
            match move:
                case ("next", _):
                    self._enter(state)
                case ("loss", _):
                    for suffix in ("", "-wal", "-shm"):
                        Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                case ("deliver", int(number)):
                    self._deliver(self._state.sent[number])
                case (int(who), "crash"):
                    self._running[who].vanish()
                case (int(who), str(way)) if way != "too late":
                    after = next((what for whose, what in trail[step + 1 :] if whose == who), None)
                    self._go(who, way, late=after == "too late")
            self._state = state
        for running in self._everybody:
            running.join()
        return self._state

    def _go(self, who: int, way: str, *, late: bool) -> None:
        """One call: made at the real store, if it is one to the store and is made; answered as the world says."""
        slot, running = self._state.slots[who], self._running[who]
        assert slot is not None
        assert slot.position.call is not None
        name, about = slot.position.call
        _, _, answer = called(self._state, who, way)
        if way in {"ok", "lost", "repeated"} and name in STORE:
            said = self._store_call(name, about)
            if way == "ok":
                assert ("ok", said) == answer
        position = slot.position.after(answer)
        if late:
            position = position.after(TOO_LATE)
        running.answer(answer, late=late)
        assert running.call() == position.call
        assert running.outcomes == position.outcomes

    def _deliver(self, sent: Sent) -> None:
        if sent.name == "put_claim":
            self._store_call(sent.name, sent.about)
        elif sent.name == "put_sighting":
            self._store_call(sent.name, Place(sent.about, self._state.log[sent.about].digest))

    def _store_call(self, name: str, about: Value) -> Value:
        if isinstance(about, Place):
            return Place.proven_by(self._store.put_sighting(TAG, about.bundle()))
        if isinstance(about, int):
            digest, created = self._store.put_claim(TAG, DIGESTS[about])
            return NUMBERS[digest], created
        if name == "claim":
            claimed = self._store.claim(TAG)
            return NUMBERS[claimed] if claimed is not None else None
        bundle = self._store.sighting(TAG)
        return Place.proven_by(bundle) if bundle is not None else None
