"""`/livez`: this process answers. `/readyz`: which of the things that it depends on answer.

    GET /readyz -> 200 {"store": "ok", "identity": "ok", "trust": "ok", "log": "the transparency log answered with 502"}

503 if the store or the identity fails: then no tag can be answered, or none recorded. The log alone is not enough for that:
recorded tags do not need it. What is said is up to KEPT_S old and looked up by one request at a time, so that asking often
costs nobody anything. Not `/healthz`, which Google's front end keeps for itself.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lib.deadline import Deadline
from lib.errors import TlogistryError
from lib.handlers.response import NO_STORE, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[Deadline], str]  # what is well, or raises TlogistryError

KEPT_S = 10.0  # seconds that an answer is given again
CHECK_S = 3.0  # seconds for each check: a probe gives up after five or ten
NECESSARY = frozenset({"store", "identity"})
NO_ANSWER = f"no answer within {CHECK_S:g} s"


class Runtime(Protocol):
    """Time and threads, as here."""

    def now(self) -> float:
        """Monotonic seconds."""

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, at most `seconds`; whether it is."""


def live() -> Response:
    """Touches neither store, log nor upstream."""
    body = b"ok\n"
    return Response(
        200, {"Content-Type": "text/plain", "Content-Length": str(len(body)), "Cache-Control": NO_STORE}, body
    )


class Readiness:
    """The handler of `/readyz`. Safe from any thread."""

    def __init__(self, checks: Mapping[str, Check], runtime: Runtime) -> None:
        """`checks` by the name that is shown; nothing is called before the first request."""
        self._checks = checks
        self._runtime = runtime
        self._lock = threading.Lock()
        self._said: dict[str, str] = {}
        self._well: set[str] = set()
        self._until = float("-inf")

    def answer(self) -> Response:
        """What the last look found, or what a look now finds, if that is long ago and nobody else is looking."""
        if self._runtime.now() >= self._until and self._lock.acquire(blocking=not self._said):
            try:
                if self._runtime.now() >= self._until:  # the one before us may have looked
                    self._look()
            finally:
                self._lock.release()
        status = 200 if self._well >= NECESSARY & self._checks.keys() else 503
        return json_response(status, self._said, {"Cache-Control": NO_STORE})

    def _look(self) -> None:
        """All checks beside each other."""
        found: dict[str, tuple[bool, str]] = {}
        done = {name: threading.Event() for name in self._checks}
        until = Deadline.after(CHECK_S, self._runtime.now)

        def check(name: str) -> None:
            try:
                found[name] = (True, self._checks[name](until))
            except TlogistryError as error:
                found[name] = (False, str(error))
            finally:
                done[name].set()

        for name in self._checks:
            self._runtime.start(f"ready-{name}", partial(check, name))
        for event in done.values():
            self._runtime.wait(event, until.left())
        seen = {name: found.get(name, (False, NO_ANSWER)) for name in self._checks}
        self._well = {name for name, (well, _) in seen.items() if well}
        self._said = {name: text for name, (_, text) in seen.items()}
        self._until = self._runtime.now() + KEPT_S
