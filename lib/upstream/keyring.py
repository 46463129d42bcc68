"""The credentials as they are now: read when first needed, read again, and kept when that fails.

    on first use and every 5 minutes    read; a request waits for that at most 3 s, and only one does; the others go on
    a realm refuses them                read again at once, so that a rotation takes effect; if they are still the same, they
                                        rest, because registries lock accounts after failed log-ins (docker/hub-feedback)
    it cannot be read, or is no JSON    what was read before stays; if that is nothing, everything is asked anonymously

A failure is logged once, not once a request. Not here: what is asked with a credential (`account.py`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lib.upstream.credentials import Credential, parse
from lib.upstream.secret import Secret, SecretUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lib.deadline import Deadline
    from lib.telemetry import Telemetry
    from lib.upstream.credentials import Realms

REFRESH_S = 300.0  # between two readings: Secret Manager bills each, and a rotation need not be faster
RETRY_S = 60.0  # after one that failed
WAIT_S = 3.0  # that a request waits for a reading; the client library alone takes 0.3 s to import
REST_S = 300.0  # that refused credentials are not tried again
AGAIN_S = 30.0  # between two readings at once, whoever refuses


class Keyring:
    """Credentials by registry. Reads nothing and starts no thread before it is asked; safe from any thread."""

    def __init__(self, secret: Secret, realms: Realms, clock: Callable[[], float], telemetry: Telemetry) -> None:
        """`clock` is monotonic, in seconds."""
        self._secret = secret
        self._realms = realms
        self._clock = clock
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._held: Mapping[str, Credential] | None = None
        self._failure: str | None = None
        self._reading = False
        self._read_at = float("-inf")
        self._due = float("-inf")
        self._resting: dict[str, tuple[Credential, float]] = {}

    def get(self, registry: str, deadline: Deadline) -> Credential | None:
        """What to use for a registry; None: ask anonymously. Never raises."""
        self._refresh(deadline)
        with self._lock:
            credential = self._held.get(registry) if self._held is not None else None
            resting, until = self._resting.get(registry, (None, 0.0))
            return None if credential == resting and self._clock() < until else credential

    def refused(self, registry: str, credential: Credential, deadline: Deadline) -> Credential | None:
        """The realm did not take `credential`: another one, if the secret has changed meanwhile. Never raises."""
        with self._lock:
            now = self._clock()
            self._resting[registry] = (credential, now + REST_S)
            if now - self._read_at >= AGAIN_S:
                self._due = now
        self._telemetry.log("WARNING", "upstream credentials refused", registry=registry, source=str(self._secret))
        return self.get(registry, deadline)

    def _refresh(self, deadline: Deadline) -> None:
        with self._lock:
            if self._reading or self._clock() < self._due:
                return
            self._reading = True
        done = threading.Event()
        try:
            threading.Thread(target=self._read, args=(done,), name="credentials", daemon=True).start()
        except RuntimeError:  # no thread to be had
            self._finish(None, "out of threads")
            return
        done.wait(min(WAIT_S, deadline.left()))

    def _read(self, done: threading.Event) -> None:
        """In a thread of its own, because no limit of ours holds for all that Google's library does to find its account."""
        held: Mapping[str, Credential] | None = None
        failure = "unexpected failure"
        try:
            held = parse(self._secret.read())
        except (SecretUnavailable, ValueError) as error:
            failure = str(error)
        finally:
            self._finish(held, failure)
            done.set()

    def _finish(self, held: Mapping[str, Credential] | None, failure: str) -> None:
        with self._lock:
            now = self._clock()
            self._reading = False
            self._read_at = now
            self._due = now + (RETRY_S if held is None else REFRESH_S)
            changed = held is not None and held != self._held
            news = held is None and failure != self._failure
            stale = self._held is not None
            self._failure = failure if held is None else None
            if held is not None:
                self._held = held
        if news:
            then = "the ones that were read before stay" if stale else "everything is asked anonymously"
            self._telemetry.log(
                "WARNING", f"upstream credentials not read; {then}", source=str(self._secret), reason=failure
            )
        if changed and held is not None:
            self._say(held)

    def _say(self, held: Mapping[str, Credential]) -> None:
        """Which registries they are for, and no more of them."""
        self._telemetry.log(
            "INFO", "upstream credentials read", source=str(self._secret), registries=", ".join(sorted(held))
        )
        for registry in sorted(held):
            if registry not in self._realms:
                self._telemetry.log(
                    "WARNING",
                    "upstream credentials for a registry without a pinned realm are never sent",
                    registry=registry,
                    source=str(self._secret),
                )
