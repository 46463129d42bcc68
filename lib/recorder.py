"""The one algorithm of this project: for each tag, log at most one digest, and serve nothing else under that tag.

    observe(tag, digest):
      1. a sighting that this process has already verified?                -> compare
      2. store.sighting(tag): verify the bundle                            -> compare
      3. none: one thread per tag leads; the others wait, each within its own deadline. Before it leads, a request is asked
         whether it may (`admit`); where one may not, the next one that waits tries to
         a. D = store.claim(tag), or, if there is none, the winner of store.put_claim(tag, digest): create-only
         b. not our claim: poll store.sighting(tag) for a while (this only saves a duplicate log entry)
         c. search the log, where it can search. A digest found there *is* D from here, whatever the claim says
         d. adopt the record found, else sign and append the statement of (tag, D), if the claim still says D
         e. store.put_sighting(tag, bundle): create-only; the first one wins and is the answer; a winner that is not ours
            is verified as in 2
         f. compare: the recorded digest against the one observed
      4. any failure in 2 or 3 is Unavailable, and nothing is served

Why this is safe. A claim never expires and is never replaced, so whoever crashed, froze or lost an answer, the next request
signs the *claimed* digest and only that one; two log entries for one digest are harmless; a claim alone blocks nobody. The
search comes after the claim, so that an instance that froze in between finds what was logged meanwhile. And the claim is read
once more, last before the append, with the deadline: an instance that froze after an empty search and wakes into a lost store
sees that its claim is gone, and signs nothing.

What is left: a store that is lost in the moment between that last look and the log's receipt of the entry, or lost while the
log's index misses an entry. Then the log shows two digests, for all to see.

Clock, waiting and starting threads are handed in (`Runtime`) like store, log and signer, so that a test can own every
interleaving. Leading ends at the deadline even if a call is still out; the next request leads afresh. An append that was sent
may finish later: it can only log D.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, assert_never

from lib.errors import (
    DeadlineExceeded,
    LogUnavailable,
    Overloaded,
    RecordInvalid,
    StoreUnavailable,
    TlogistryError,
    Unavailable,
)
from lib.sighting.sighting import Found, NothingFound, NotSearchable, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.sighting.sighting import Bundle, Sighting, Signer, TransparencyLog, Verifier
    from lib.store.store import RecordStore
    from lib.telemetry import Telemetry

POLL_S = 2.0  # seconds that a leader waits for the claim's maker: longer than a quick append, shorter than patience
POLL_SHARE = 0.25  # of the time left, at most: a claim alone must not block a tag where deadlines are short
POLL_EVERY_S = 0.05
CACHE_S = 600.0  # seconds that a verified sighting is believed without looking at the store again
CACHE_ENTRIES = 10_000  # about 1 KiB each
WAITING = 64  # requests that may wait for a leader at once: fewer than the server's threads, so that the rest goes on


class Runtime(Protocol):
    """Time and threads, as the recorder uses them."""

    def now(self) -> float:
        """Monotonic seconds."""

    def sleep(self, seconds: float) -> None:
        """Wait in this thread."""

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own, which does not keep the process alive. RuntimeError: there is none to be had."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, at most `seconds`; whether it is."""


class Threads:
    """The Runtime of real threads and the real clock."""

    def now(self) -> float:
        """See Runtime."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Runtime."""
        time.sleep(seconds)

    def start(self, name: str, work: Callable[[], None]) -> None:
        """See Runtime."""
        context = contextvars.copy_context()  # what is logged there belongs to the request that started it
        threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """See Runtime."""
        return event.wait(seconds)


@dataclass(frozen=True, slots=True)
class Same:
    """The tag points to the recorded digest. `first_seen`: this very request made the record."""

    sighting: Sighting
    first_seen: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """The tag pointed to another digest when it was recorded; `sighting` is the evidence."""

    sighting: Sighting
    offered: Digest


Verdict = Same | Moved


@dataclass(slots=True)
class _Lead:
    """One attempt to make the record of a tag. Its thread sets `done` last; the outcome is a sighting or an error.

    One that was not admitted is done with neither.
    """

    deadline: Deadline
    done: threading.Event = field(default_factory=threading.Event)
    sighting: Sighting | None = None
    made: bool = False
    error: TlogistryError | None = None


class Recorder:
    """Observes tags. Safe from any thread; instances share nothing but the store and the log."""

    def __init__(  # noqa: PLR0913 - the collaborators, each once
        self,
        *,
        store: RecordStore,
        log: TransparencyLog,
        signer: Signer,
        verifier: Verifier,
        runtime: Runtime,
        telemetry: Telemetry,
    ) -> None:
        """Nothing is called before the first observation."""
        self._store = store
        self._log = log
        self._signer = signer
        self._verifier = verifier
        self._runtime = runtime
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._leads: dict[Tag, _Lead] = {}
        self._waiting = 0
        self._cache: OrderedDict[Tag, tuple[Sighting, int, float]] = OrderedDict()

    def recall(self, tag: Tag) -> Sighting | None:
        """Steps 1 and 2: what has been recorded for `tag`, None if nothing has. Never makes a record.

        Raises StoreUnavailable, RecordInvalid.
        """
        with self._lock:
            entry = self._cache.get(tag)
        if entry is not None:
            sighting, generation, until = entry
            if generation == self._verifier.generation() and self._runtime.now() < until:
                return sighting
        record = self.record(tag)
        return record.sighting if record is not None else None

    def record(self, tag: Tag) -> Record | None:
        """Step 2 alone: the stored record with its evidence, verified now; None if there is none."""
        bundle = self._store.sighting(tag)
        return self._verified(tag, bundle) if bundle is not None else None

    def observe(self, tag: Tag, digest: Digest, deadline: Deadline, admit: Callable[[], None] | None = None) -> Verdict:
        """What to conclude from "the upstream serves `digest` for `tag`", making the record if there is none.

        `admit` is called in this thread each time that this request is about to lead the making of a record, before anything
        is asked of store, signer or log for that; what it raises is this request's outcome, and no other's.
        Raises Unavailable (could not tell), and what `admit` raises.
        """
        known = self.recall(tag)  # 1, 2
        if known is not None:
            return _compare(known, digest, first_seen=False)
        with self._waiting_room():
            while True:  # 3
                lead, ours = self._lead_or_join(tag, digest, deadline, admit)
                sighting = self._outcome(tag, lead, deadline, ours=ours)
                if sighting is not None:
                    return _compare(sighting, digest, first_seen=ours and lead.made)  # f
                # somebody else's attempt ran out of time or was not admitted, and we have time left: lead afresh

    def awaited(self, tag: Tag, deadline: Deadline) -> Sighting | None:
        """What the attempt under way for `tag` in this process comes to; None if there is none, or no outcome but its own.

        So a request that comes while a record is being made need not ask the upstream what it serves until there is something
        to compare that with. Raises Unavailable.
        """
        with self._lock:
            lead = self._leads.get(tag)
        if lead is None:
            return None
        with self._waiting_room():
            return self._outcome(tag, lead, deadline, ours=False)

    def _outcome(self, tag: Tag, lead: _Lead, deadline: Deadline, *, ours: bool) -> Sighting | None:
        """Wait for it. None: it ran out of its own time, or was not admitted, which is no outcome for anybody else."""
        self._wait(tag, lead, deadline)
        if lead.sighting is None and lead.error is not None and (ours or not isinstance(lead.error, DeadlineExceeded)):
            raise lead.error.again() from lead.error
        return lead.sighting

    def adopt(self, tag: Tag, digest: Digest, deadline: Deadline) -> Record:
        """Complete a tag that is stuck because nothing in the log explains an entry of ours: the operator names the digest.

        It is adopted only if a log entry of ours proves it, so a wrong digest changes nothing.
        Raises RecordInvalid if something else is recorded or proven, LogUnavailable if nothing is.
        """
        record, generation = self.record(tag), self._verifier.generation()
        if record is None:
            found = self._log.search(tag, (digest,), deadline)
            if not isinstance(found, Found):
                msg = f"the log shows no entry of ours for {tag.familiar}"
                raise LogUnavailable(msg)
            record = found.record
            if record.sighting.digest == digest:
                record, _ = self._put(tag, record, generation)
        if record.sighting.digest != digest:
            msg = f"{tag.familiar} is recorded as {record.sighting.digest} (log index {record.sighting.log_index})"
            raise RecordInvalid(msg)
        return record

    def _lead_or_join(
        self, tag: Tag, digest: Digest, deadline: Deadline, admit: Callable[[], None] | None
    ) -> tuple[_Lead, bool]:
        """The attempt under way for `tag`, or a new one, which this request leads. Raises what `admit` raises."""
        deadline.check("recording the tag")
        with self._lock:
            lead = self._leads.get(tag)
            if lead is not None and not lead.done.is_set() and not lead.deadline.passed():
                return lead, False
            lead = self._leads[tag] = _Lead(deadline)
        if admit is not None:
            self._admit(tag, lead, admit)
        try:
            self._runtime.start("lead", lambda: self._run(lead, tag, digest))
        except RuntimeError:
            lead.error = Overloaded("no thread could be started to record the tag")
            lead.done.set()
            self._forget(tag, lead)
        return lead, True

    def _admit(self, tag: Tag, lead: _Lead, admit: Callable[[], None]) -> None:
        """Ask; if the answer is no, whoever joined meanwhile goes on without an outcome, and leads if it may."""
        admitted = False
        try:
            admit()
            admitted = True
        finally:
            if not admitted:
                lead.done.set()
                self._forget(tag, lead)

    @contextmanager
    def _waiting_room(self) -> Iterator[None]:
        """A place for one request, taken before a thread is started for it, so that there are not more of those either."""
        with self._lock:
            if self._waiting >= WAITING:
                msg = "too many requests are waiting for the transparency log"
                raise Overloaded(msg)
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _wait(self, tag: Tag, lead: _Lead, deadline: Deadline) -> None:
        """Wait for the attempt to end: by an outcome, or because its time or ours is over."""
        self._runtime.wait(lead.done, min(deadline.left(), lead.deadline.left()))
        if not lead.done.is_set():
            self._forget(tag, lead)
            if deadline.passed():
                msg = "no answer from the transparency log, the signer or the store within the deadline"
                raise DeadlineExceeded(msg)

    def _forget(self, tag: Tag, lead: _Lead) -> None:
        """The next request leads afresh."""
        with self._lock:
            if self._leads.get(tag) is lead and (lead.done.is_set() or lead.deadline.passed()):
                del self._leads[tag]

    def _run(self, lead: _Lead, tag: Tag, digest: Digest) -> None:
        """The leading thread: whatever happens, the waiting requests get an outcome."""
        try:
            lead.sighting, lead.made = self._make(lead.deadline, tag, digest)
        except TlogistryError as error:
            lead.error = error
        finally:
            if lead.sighting is None and lead.error is None:
                lead.error = Unavailable("the record could not be made")
            lead.done.set()
            self._forget(tag, lead)

    def _make(self, deadline: Deadline, tag: Tag, observed: Digest) -> tuple[Sighting, bool]:
        """Steps 3a to 3e. Returns the recorded sighting, and whether this attempt made it."""
        generation = self._verifier.generation()  # before anything is verified under it
        digest, created = self._store.claim(tag), False  # a
        if digest is None:
            digest, created = self._store.put_claim(tag, observed)
        if digest.algorithm != "sha256":
            msg = f"the store's claim for {tag.familiar} is a {digest.algorithm} digest: a tag is recorded by sha256"
            raise StoreUnavailable(msg)
        if not created:  # b
            finished = self._poll(deadline, tag)
            if finished is not None:
                return finished, False
        deadline.check("searching the log")
        found = self._log.search(tag, tuple(dict.fromkeys((digest, observed))), deadline)  # c
        match found:  # d
            case Found(adopted):
                record, made = adopted, False
            case NothingFound() | NotSearchable():
                deadline.check("signing")
                record = self._signer.sign(tag, digest, lambda: self._still_claimed(deadline, tag, digest), deadline)
                made = True
            case _:
                assert_never(found)
        record, ours = self._put(tag, record, generation)  # e
        return record.sighting, made and ours

    def _poll(self, deadline: Deadline, tag: Tag) -> Sighting | None:
        """Wait a little for whoever made the claim; None if nothing came."""
        until = self._runtime.now() + min(POLL_S, deadline.left() * POLL_SHARE)
        while True:
            record = self.record(tag)
            if record is not None:
                return record.sighting
            if self._runtime.now() >= until:
                return None
            self._runtime.sleep(POLL_EVERY_S)

    def _still_claimed(self, deadline: Deadline, tag: Tag, digest: Digest) -> None:
        """Last before the append: an instance that slept past its deadline, or into a lost store, must not sign."""
        if self._store.claim(tag) != digest:
            msg = "the store no longer has the claim that was to be signed"
            raise StoreUnavailable(msg)
        deadline.check("appending to the log")

    def _put(self, tag: Tag, record: Record, generation: int) -> tuple[Record, bool]:
        """Create the record, which was verified under `generation`; the winner, verified, and whether it is ours."""
        winner = self._store.put_sighting(tag, record.bundle)
        if winner != record.bundle:
            return self._verified(tag, winner), False
        self._remember(record.sighting, generation)
        return record, True

    def _verified(self, tag: Tag, bundle: Bundle) -> Record:
        """Step 2's verification; a record that fails is never served and never "first seen"."""
        generation = self._verifier.generation()  # before: a root replaced meanwhile makes it be verified again
        try:
            sighting = self._verifier.verify(bundle, tag)
        except RecordInvalid as error:
            self._telemetry.count("record_invalid")
            self._telemetry.log("ERROR", "stored record does not verify", tag=tag.familiar, reason=str(error))
            raise
        self._remember(sighting, generation)
        return Record(sighting, bundle)

    def _remember(self, sighting: Sighting, generation: int) -> None:
        with self._lock:
            self._cache[sighting.tag] = (sighting, generation, self._runtime.now() + CACHE_S)
            self._cache.move_to_end(sighting.tag)
            while len(self._cache) > CACHE_ENTRIES:
                self._cache.popitem(last=False)


def _compare(sighting: Sighting, digest: Digest, *, first_seen: bool) -> Verdict:
    if sighting.digest == digest:
        return Same(sighting, first_seen)
    return Moved(sighting, digest)
