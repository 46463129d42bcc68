"""`/readyz` without a network: what it says for what its checks find, and how seldom it looks."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from lib.errors import SignerUnavailable, StoreUnavailable
from lib.handlers.health import CHECK_S, KEPT_S, NO_ANSWER, Readiness
from lib.recorder import Threads
from tests.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.deadline import Deadline
    from lib.handlers.response import Response


class Turning(Threads):
    """Real threads; the clock is the test's, and waiting for a check takes all of its time at once."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.held = threading.Event()

    def now(self) -> float:
        return self.clock.now()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(0.2 if self.held.is_set() else 10) if seconds > 0 else event.is_set()


class Checks:
    """Four things that can fail, and how often each was asked."""

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.release = threading.Event()
        self.hanging: str | None = None
        self.names = ("store", "identity", "trust", "log")

    def check(self, name: str) -> str:
        self.asked.append(name)
        if name == self.hanging:
            self.release.wait(30)
        if name in self.failing:
            raise self.failing[name]
        return "ok"

    def of(self, runtime: Turning) -> Readiness:
        def bound(name: str) -> Callable[[Deadline], str]:
            return lambda _deadline: self.check(name)

        return Readiness({name: bound(name) for name in self.names}, runtime)


def said(response: Response) -> tuple[int, dict[str, str]]:
    assert isinstance(response.body, bytes)
    return response.status, json.loads(response.body)


def test_all_well() -> None:
    assert said(Checks().of(Turning()).answer()) == (
        200,
        {"store": "ok", "identity": "ok", "trust": "ok", "log": "ok"},
    )


@pytest.mark.parametrize(("name", "status"), [("store", 503), ("identity", 503), ("trust", 200), ("log", 200)])
def test_what_is_necessary_makes_it_503_and_the_rest_is_only_said(name: str, status: int) -> None:
    checks = Checks()
    checks.failing[name] = StoreUnavailable("it is away")
    answered, texts = said(checks.of(Turning()).answer())
    assert answered == status
    assert texts == {**dict.fromkeys(checks.names, "ok"), name: "it is away"}


def test_asking_often_looks_once_and_a_recovery_is_seen_after_a_while() -> None:
    checks, runtime = Checks(), Turning()
    ready = checks.of(runtime)
    checks.failing["identity"] = SignerUnavailable("no token")
    assert [ready.answer().status for _ in range(100)] == [503] * 100
    assert sorted(checks.asked) == sorted(checks.names)
    checks.failing.clear()
    runtime.clock.advance(KEPT_S)
    assert ready.answer().status == 200
    assert len(checks.asked) == 8


def test_a_check_that_hangs_is_said_and_holds_nobody() -> None:
    checks, runtime = Checks(), Turning()
    ready = checks.of(runtime)
    checks.hanging = "store"
    runtime.held.set()
    assert said(ready.answer()) == (503, {"store": NO_ANSWER, "identity": "ok", "trust": "ok", "log": "ok"})
    checks.release.set()


def test_a_hundred_threads_at_once_cost_one_look() -> None:
    checks = Checks()
    ready = checks.of(Turning())
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(ready.answer().status)) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 100
    assert sorted(checks.asked) == sorted(checks.names)


def test_every_check_gets_the_same_short_time() -> None:
    runtime = Turning()
    left: list[float] = []

    def check(deadline: Deadline) -> str:
        left.append(deadline.left())
        return "ok"

    Readiness({"store": check, "log": check}, runtime).answer()
    assert left == [CHECK_S, CHECK_S]
