"""What a test hands to the recorder in place of a collaborator, to own an interleaving: time, threads, gates, failures.

Each wraps the real one, and says only when a call goes through, fails or ends. Nothing here decides anything.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from lib.deadline import Deadline
from lib.errors import LogUnavailable, StoreUnavailable, TlogistryError
from lib.recorder import Threads
from tests.sigstore import DevIdentity, Parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sigstore.oidc import IdentityToken

    from lib.devsigstore.server import DevSigstore
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.recorder import Recorder, Verdict
    from lib.sighting.sighting import Bundle, Found, NothingFound, NotSearchable, Record, Signer, TransparencyLog
    from lib.store.store import RecordStore

T = TypeVar("T")
LONG_S = 60  # seconds that something may take on a busy machine before a test gives it up
LOOK_S = 0.01


class OwnTime(Threads):
    """Real threads, of whose end a test can be sure, and a clock that it pushes forward."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.waiting = 0
        self.names: list[str] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        return super().now() + self.ahead

    def deadline(self, seconds: float) -> Deadline:
        return Deadline.after(seconds, self.now)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        until = self.now() + seconds
        with self._lock:
            self.waiting += 1
        try:
            while not event.wait(LOOK_S):
                if self.now() >= until:
                    return event.is_set()
            return True
        finally:
            with self._lock:
                self.waiting -= 1

    def start(self, name: str, work: Callable[[], None]) -> None:
        self.names.append(name)
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """All that was started has ended."""
        for thread in self._threads:
            thread.join(LONG_S)
            assert not thread.is_alive()


class StillTime(OwnTime):
    """A clock that moves only while somebody sleeps: what is left of a deadline is not a matter of the machine."""

    def now(self) -> float:
        return self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


class NoThreads(OwnTime):
    """A host that has no more threads for us, until it has."""

    full = True

    def start(self, name: str, work: Callable[[], None]) -> None:
        if self.full:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        super().start(name, work)


class Asked:
    """A request in a thread of its own."""

    def __init__(self, recorder: Recorder, tag: Tag, digest: Digest, deadline: Deadline) -> None:
        self._outcome: list[Verdict | TlogistryError] = []

        def observe() -> None:
            try:
                self._outcome.append(recorder.observe(tag, digest, deadline))
            except TlogistryError as error:
                self._outcome.append(error)

        self._thread = threading.Thread(target=observe)
        self._thread.start()

    def outcome(self) -> Verdict | TlogistryError:
        """The verdict, or the error, when there is one."""
        self._thread.join(LONG_S)
        (outcome,) = self._outcome
        return outcome


class Gate:
    """Lets a call through only when it is opened, and tells when somebody stands before it."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def pass_(self) -> None:
        self._reached.set()
        assert self._open.wait(LONG_S)

    def reached(self) -> None:
        """Wait until somebody stands there."""
        assert self._reached.wait(LONG_S)

    def open(self) -> None:
        self._open.set()


class FrozenStore:
    """The store, with a gate before or behind one of its calls."""

    def __init__(self, store: RecordStore, gate: Gate, where: str) -> None:
        self._store, self._gate, self._where = store, gate, where
        self._looked = 0

    def _at(self, where: str) -> None:
        if where == self._where:
            self._gate.pass_()

    def sighting(self, tag: Tag) -> Bundle | None:
        return self._store.sighting(tag)

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        self._at("before put_sighting")
        return self._store.put_sighting(tag, bundle)

    def claim(self, tag: Tag) -> Digest | None:
        self._looked += 1
        self._at("before claim" if self._looked == 1 else "before last look")
        found = self._store.claim(tag)
        self._at("after claim" if self._looked == 1 else "after last look")
        return found

    def put_claim(self, tag: Tag, digest: Digest) -> tuple[Digest, bool]:
        self._at("before put_claim")
        won = self._store.put_claim(tag, digest)
        self._at("after put_claim")
        return won


class FrozenLog:
    """The search, with a gate behind it."""

    def __init__(self, log: TransparencyLog, gate: Gate) -> None:
        self._log, self._gate = log, gate

    def search(
        self, tag: Tag, candidates: tuple[Digest, ...], deadline: Deadline
    ) -> Found | NothingFound | NotSearchable:
        found = self._log.search(tag, candidates, deadline)
        self._gate.pass_()
        return found


class FrozenIdentity:
    """The metadata server, with a gate before it: there is no certificate yet."""

    def __init__(self, identity: DevIdentity, gate: Gate) -> None:
        self._identity, self._gate = identity, gate

    def token(self, deadline: Deadline) -> IdentityToken:
        self._gate.pass_()
        return self._identity.token(deadline)


class FrozenSigner:
    """The signer, with a gate before it: the search has been answered."""

    def __init__(self, signer: Signer, gate: Gate) -> None:
        self._signer, self._gate = signer, gate

    def sign(self, tag: Tag, digest: Digest, before_append: Callable[[], None], deadline: Deadline) -> Record:
        self._gate.pass_()
        return self._signer.sign(tag, digest, before_append, deadline)


STEPS = (
    "before claim",
    "after claim",
    "before put_claim",
    "after put_claim",
    "after search",
    "before sign",
    "before certificate",
    "before last look",
    "after last look",
    "before put_sighting",
)


def frozen(where: str, dev: DevSigstore, store: Path, gate: Gate, runtime: OwnTime, *, search: bool = True) -> Parts:
    """An instance that stands still at one of STEPS until the gate is opened."""
    identity = FrozenIdentity(DevIdentity(dev.url), gate) if where == "before certificate" else None
    parts = Parts(dev, store, search=search, runtime=runtime, identity=identity)
    if where == "after search":
        parts.log = FrozenLog(parts.log, gate)
    elif where == "before sign":
        parts.signer = FrozenSigner(parts.signer, gate)
    else:
        parts.store = FrozenStore(parts.store, gate, where)
    return parts


class StuckLog:
    """A search that is answered when somebody says so, and then badly."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def search(self, *_: object) -> Found:
        assert self.open.wait(LONG_S)
        msg = "down"
        raise LogUnavailable(msg)


class FailingStore:
    """The store; one of its calls fails once, before it has done anything or after."""

    def __init__(self, store: RecordStore, call: str, *, done: bool) -> None:
        self._store, self._call, self._done = store, call, done

    def _run(self, call: str, work: Callable[[], T]) -> T:
        if call != self._call:
            return work()
        self._call = ""
        if self._done:
            work()
        msg = "the answer was lost"
        raise StoreUnavailable(msg)

    def sighting(self, tag: Tag) -> Bundle | None:
        return self._run("sighting", lambda: self._store.sighting(tag))

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        return self._run("put_sighting", lambda: self._store.put_sighting(tag, bundle))

    def claim(self, tag: Tag) -> Digest | None:
        return self._run("claim", lambda: self._store.claim(tag))

    def put_claim(self, tag: Tag, digest: Digest) -> tuple[Digest, bool]:
        return self._run("put_claim", lambda: self._store.put_claim(tag, digest))
