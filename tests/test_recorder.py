"""The recorder, against a real local Sigstore and a real store: whatever fails, froze or was lost, one digest for a tag."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lib.errors import (
    DeadlineExceeded,
    LogUnavailable,
    RecordInvalid,
    SignerUnavailable,
    StoreUnavailable,
    TlogistryError,
    Unavailable,
)
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.recorder import CACHE_S, Moved, Same, Threads
from lib.sighting.statement import statement
from tests.sigstore import Parts, digests_logged, logged, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.deadline import Deadline
    from lib.devsigstore.server import DevSigstore
    from lib.sighting.sighting import Bundle, Found, NothingFound, NotSearchable, Record, Signer, TransparencyLog
    from lib.store.store import RecordStore

TAG = Tag.parse("my-user/my-app:v1.2.3")
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def lose(store: Path) -> None:
    """The store is gone; the log is not."""
    for name in (store, Path(f"{store}-wal"), Path(f"{store}-shm")):
        name.unlink(missing_ok=True)


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until, "did not happen in 10 s"
        time.sleep(0.01)


def test_first_sighting_is_recorded_and_the_second_request_is_compared(dev: DevSigstore, store: Path) -> None:
    recorder = Parts(dev, store).recorder()
    first = recorder.observe(TAG, OLD, seconds(10))
    assert isinstance(first, Same)
    assert first.first_seen
    assert recorder.observe(TAG, OLD, seconds(10)) == Same(first.sighting, first_seen=False)
    assert recorder.observe(TAG, NEW, seconds(10)) == Moved(first.sighting, NEW)
    assert dev.calls["append"] == 1
    assert sorted(kind for kind, _ in logged(dev.url, TAG)) == ["dsse", "intoto"]


def test_another_instance_and_a_restart_remember(dev: DevSigstore, store: Path) -> None:
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(10))
    assert Parts(dev, store).recorder().observe(TAG, OLD, seconds(10)) == Same(made.sighting, first_seen=False)
    assert Parts(dev, store).recorder().observe(TAG, NEW, seconds(10)) == Moved(made.sighting, NEW)


def test_a_recorded_tag_costs_no_call_to_the_log(dev: DevSigstore, store: Path) -> None:
    Parts(dev, store).recorder().observe(TAG, OLD, seconds(10))
    recorder = Parts(dev, store).recorder()
    before = dict(dev.calls)
    for _ in range(3):
        recorder.observe(TAG, OLD, seconds(10))
    assert dict(dev.calls) == before


def test_certificates_are_used_again(dev: DevSigstore, store: Path) -> None:
    recorder = Parts(dev, store).recorder()
    for number in range(5):
        recorder.observe(Tag.parse(f"app:{number}"), OLD, seconds(10))
    assert dev.calls["certificate"] == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("log:before", LogUnavailable),
        ("log:after", LogUnavailable),
        ("index:before", LogUnavailable),
        ("fulcio:before", SignerUnavailable),
        ("metadata:before", SignerUnavailable),
        ("log:late", DeadlineExceeded),
        ("fulcio:hang", DeadlineExceeded),
        ("set:bad", RecordInvalid),
    ],
)
def test_a_fault_is_unavailable_and_the_next_request_succeeds_with_one_digest(
    dev: DevSigstore, store: Path, fault: str, error: type[TlogistryError]
) -> None:
    recorder = Parts(dev, store).recorder()
    dev.faults.set(fault)
    started = time.monotonic()
    with pytest.raises(error if fault != "metadata:before" else Unavailable):
        recorder.observe(TAG, OLD, seconds(1.5))
    assert time.monotonic() - started < 2.5, "within the deadline"
    dev.faults.set("")
    verdict = recorder.observe(TAG, NEW, seconds(10))
    assert verdict.sighting.digest == OLD, "the claim was for the digest of the first request"
    assert isinstance(verdict, Moved)
    eventually(lambda: len(digests_logged(dev.url, TAG)) == 1)


def test_proof_that_does_not_verify_makes_an_orphan_that_is_never_stored(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    recorder = parts.recorder()
    recorder.observe(Tag.parse("app:first"), OLD, seconds(10))
    dev.faults.set("proof:bad")
    with pytest.raises(RecordInvalid):
        recorder.observe(TAG, OLD, seconds(5))
    assert parts.store.sighting(TAG) is None
    assert parts.telemetry.counters()["orphan"] == 1
    dev.faults.set("")
    assert isinstance(recorder.observe(TAG, OLD, seconds(10)), Same)
    assert len(digests_logged(dev.url, TAG)) == 1


def test_a_failed_copy_is_counted_and_blocks_nothing(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    dev.faults.set("copy:before")
    assert isinstance(parts.recorder().observe(TAG, OLD, seconds(10)), Same)
    assert parts.telemetry.counters()["copy_failed"] == 1
    assert [kind for kind, _ in logged(dev.url, TAG)] == ["dsse"]


def test_an_abandoned_claim_is_finished_by_whoever_comes_next(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    parts.store.put_claim(TAG, OLD)  # and its maker was killed
    verdict = parts.recorder().observe(TAG, NEW, seconds(10))
    assert verdict == Moved(verdict.sighting, NEW)
    assert verdict.sighting.digest == OLD


def test_a_claim_that_was_signed_but_not_stored_is_adopted_from_the_log(
    dev: DevSigstore, store: Path, tmp_path: Path
) -> None:
    other = Parts(dev, tmp_path / "other.sqlite").recorder().observe(TAG, OLD, seconds(10))
    parts = Parts(dev, store)
    parts.store.put_claim(TAG, OLD)
    verdict = parts.recorder().observe(TAG, OLD, seconds(10))
    assert verdict == Same(other.sighting, first_seen=False), "an adopted record is not first seen"
    assert dev.calls["append"] == 1


def test_the_store_is_lost_and_the_old_digest_is_found_in_the_log(dev: DevSigstore, store: Path) -> None:
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(10))
    lose(store)
    assert Parts(dev, store).recorder().observe(TAG, NEW, seconds(10)) == Moved(made.sighting, NEW)
    assert Parts(dev, store).recorder().observe(TAG, OLD, seconds(10)) == Same(made.sighting, first_seen=False)
    assert len(digests_logged(dev.url, TAG)) == 1


def test_the_store_is_lost_without_a_readable_copy_and_the_entry_is_named(dev: DevSigstore, store: Path) -> None:
    dev.faults.set("copy:before")
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(10))
    dev.faults.set("")
    lose(store)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=made.sighting.uuid):
            Parts(dev, store).recorder().observe(TAG, NEW, seconds(10))
    assert len(digests_logged(dev.url, TAG)) == 1
    assert dev.calls["append"] == 1


def test_the_right_digest_explains_an_entry_without_a_copy(dev: DevSigstore, store: Path) -> None:
    dev.faults.set("copy:before")
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(10))
    dev.faults.set("")
    lose(store)
    assert Parts(dev, store).recorder().observe(TAG, OLD, seconds(10)) == Same(made.sighting, first_seen=False)


def test_adopt_completes_a_stuck_tag_and_cannot_lie(dev: DevSigstore, store: Path) -> None:
    dev.faults.set("copy:before")
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(10))
    dev.faults.set("")
    lose(store)
    recorder = Parts(dev, store).recorder()
    with pytest.raises(LogUnavailable, match=made.sighting.uuid):
        recorder.observe(TAG, NEW, seconds(10))
    with pytest.raises(LogUnavailable):
        recorder.adopt(TAG, NEW, seconds(10))
    assert recorder.adopt(TAG, OLD, seconds(10)).sighting == made.sighting
    assert recorder.observe(TAG, NEW, seconds(10)) == Moved(made.sighting, NEW)
    assert recorder.adopt(TAG, OLD, seconds(10)).sighting == made.sighting, "again: nothing changes"
    with pytest.raises(RecordInvalid, match=str(OLD)):
        recorder.adopt(TAG, NEW, seconds(10))


def test_adopt_of_a_tag_that_was_never_logged_is_refused(dev: DevSigstore, store: Path) -> None:
    with pytest.raises(LogUnavailable, match="no entry of ours"):
        Parts(dev, store).recorder().adopt(TAG, OLD, seconds(10))


def test_a_switched_off_search_still_records(dev: DevSigstore, store: Path) -> None:
    assert isinstance(Parts(dev, store, search=False).recorder().observe(TAG, OLD, seconds(10)), Same)
    assert dev.calls["index"] == 0


# --- tampering ------------------------------------------------------------------------------------------------------


def tamper(store: Path, bundle: bytes) -> None:
    with sqlite3.connect(store) as db:
        db.execute("DROP TRIGGER IF EXISTS sighting_once")
        db.execute("UPDATE sighting SET bundle = ? WHERE tag = ?", (bundle, str(TAG)))
    db.close()


def _other_digest(dev: DevSigstore, tmp_path: Path, bundle: bytes) -> bytes:
    parsed = json.loads(bundle)
    parsed["dsseEnvelope"]["payload"] = base64.b64encode(statement(TAG, NEW)).decode()
    return json.dumps(parsed).encode()


def _other_tag(dev: DevSigstore, tmp_path: Path, bundle: bytes) -> bytes:
    parts = Parts(dev, tmp_path / "elsewhere.sqlite")
    parts.recorder().observe(Tag.parse("my-user/my-app:v1.2.4"), OLD, seconds(10))
    return parts.store.sighting(Tag.parse("my-user/my-app:v1.2.4")) or b""


def _truncated(dev: DevSigstore, tmp_path: Path, bundle: bytes) -> bytes:
    return bundle[: len(bundle) // 2]


def _other_identity(dev: DevSigstore, tmp_path: Path, bundle: bytes) -> bytes:
    ours, dev.email = dev.email, "somebody-else@not-for-production.invalid"
    try:
        parts = Parts(dev, tmp_path / "theirs.sqlite", search=False)
        parts.recorder().observe(TAG, OLD, seconds(10))
        return parts.store.sighting(TAG) or b""
    finally:
        dev.email = ours


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (_other_digest, "payload hash|signature"),
        (_other_tag, "not the canonical statement of"),
        (_truncated, "InvalidBundle"),
        (_other_identity, "somebody-else.* not an accepted identity"),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_"),
)
def test_a_record_that_was_tampered_with_is_never_served(
    dev: DevSigstore, store: Path, tmp_path: Path, forge: Callable[[DevSigstore, Path, bytes], bytes], says: str
) -> None:
    first = Parts(dev, store)
    first.recorder().observe(TAG, OLD, seconds(10))
    bundle = first.store.sighting(TAG)
    assert bundle is not None
    tamper(store, forge(dev, tmp_path, bundle))
    for digest in (OLD, NEW):
        parts = Parts(dev, store)
        with pytest.raises(RecordInvalid, match=says):
            parts.recorder().observe(TAG, digest, seconds(10))
        assert any("does not verify" in line and str(TAG.familiar) in line for line in parts.lines)


# --- freezing: a test owns each call to a collaborator ------------------------------------------------------------------


class Gate:
    """Lets a call through only when it is opened, and tells when somebody stands before it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def pass_(self) -> None:
        self.reached.set()
        assert self.open.wait(20)


class FrozenStore:
    """The store, with a gate before or behind one of its calls."""

    def __init__(self, store: RecordStore, gate: Gate, where: str) -> None:
        self._store, self._gate, self._where = store, gate, where

    def _at(self, where: str) -> None:
        if where == self._where:
            self._gate.pass_()

    def sighting(self, tag: Tag) -> Bundle | None:
        return self._store.sighting(tag)

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        self._at("before put_sighting")
        return self._store.put_sighting(tag, bundle)

    def claim(self, tag: Tag) -> Digest | None:
        return self._store.claim(tag)

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


class FrozenSigner:
    """The signer, with a gate before it: the search has been answered."""

    def __init__(self, signer: Signer, gate: Gate) -> None:
        self._signer, self._gate = signer, gate

    def sign(self, tag: Tag, digest: Digest, before_append: Callable[[], None], deadline: Deadline) -> Record:
        self._gate.pass_()
        return self._signer.sign(tag, digest, before_append, deadline)


@pytest.mark.parametrize(
    "where", ["before put_claim", "after put_claim", "after search", "before sign", "before put_sighting"]
)
@pytest.mark.parametrize("deadline_passes", [False, True], ids=["in time", "too late"])
def test_the_store_is_lost_while_an_instance_is_frozen(
    dev: DevSigstore, store: Path, where: str, *, deadline_passes: bool
) -> None:
    gate, parts = Gate(), Parts(dev, store)
    if where == "after search":
        parts.log = FrozenLog(parts.log, gate)
    elif where == "before sign":
        parts.signer = FrozenSigner(parts.signer, gate)
    else:
        parts.store = FrozenStore(parts.store, gate, where)
    frozen = parts.recorder()
    outcome: list[object] = []

    def observe() -> None:
        try:
            outcome.append(frozen.observe(TAG, OLD, seconds(1 if deadline_passes else 20)))
        except TlogistryError as error:
            outcome.append(error)

    thread = threading.Thread(target=observe)
    thread.start()
    assert gate.reached.wait(10)
    if deadline_passes:
        thread.join(10)
        assert isinstance(outcome[0], Unavailable)
    lose(store)
    verdict = Parts(dev, store).recorder().observe(TAG, NEW, seconds(10))
    gate.open.set()
    thread.join(20)
    time.sleep(0.3)  # a thread that was frozen past its deadline is on its way
    assert len(digests_logged(dev.url, TAG)) == 1
    if isinstance(outcome[0], (Same, Moved)):
        assert outcome[0].sighting.digest == verdict.sighting.digest
    again = Parts(dev, store).recorder().observe(TAG, NEW, seconds(10))
    assert again.sighting.digest == verdict.sighting.digest


def test_an_instance_that_wakes_after_its_deadline_appends_nothing(dev: DevSigstore, store: Path) -> None:
    gate, parts = Gate(), Parts(dev, store)
    parts.signer = FrozenSigner(parts.signer, gate)
    with pytest.raises(DeadlineExceeded):
        parts.recorder().observe(TAG, OLD, seconds(0.5))
    gate.open.set()
    time.sleep(0.3)
    assert dev.calls["append"] == 0
    assert Parts(dev, store).recorder().observe(TAG, NEW, seconds(10)).sighting.digest == OLD


def test_requests_that_wait_compare_the_recorded_digest_with_their_own(dev: DevSigstore, store: Path) -> None:
    gate, parts = Gate(), Parts(dev, store)
    parts.signer = FrozenSigner(parts.signer, gate)
    recorder = parts.recorder()
    verdicts: dict[int, object] = {}
    threads = [
        threading.Thread(
            target=lambda n=number: verdicts.__setitem__(n, recorder.observe(TAG, (OLD, NEW)[n % 2], seconds(20)))
        )
        for number in range(8)
    ]
    threads[0].start()
    assert gate.reached.wait(10)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.2)
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert [type(verdicts[number]) for number in range(8)] == [Same, Moved] * 4
    assert [v.first_seen for v in verdicts.values() if isinstance(v, Same)].count(True) == 1
    assert dev.calls["append"] == 1


def test_a_waiting_request_keeps_its_own_deadline_and_leads_when_the_leader_gave_up(
    dev: DevSigstore, store: Path
) -> None:
    gate, parts = Gate(), Parts(dev, store)
    parts.log = FrozenLog(parts.log, gate)
    recorder = parts.recorder()
    outcome: dict[str, object] = {}

    def observe(name: str, digest: Digest, time_s: float) -> None:
        try:
            outcome[name] = recorder.observe(TAG, digest, seconds(time_s))
        except TlogistryError as error:
            outcome[name] = error

    leader = threading.Thread(target=observe, args=("leader", OLD, 1.0))
    leader.start()
    assert gate.reached.wait(10)
    patient = threading.Thread(target=observe, args=("patient", NEW, 20.0))
    patient.start()
    hasty = threading.Thread(target=observe, args=("hasty", NEW, 0.2))
    hasty.start()
    hasty.join(5)
    assert isinstance(outcome["hasty"], DeadlineExceeded)
    leader.join(5)
    assert isinstance(outcome["leader"], DeadlineExceeded)
    gate.open.set()
    patient.join(20)
    verdict = outcome["patient"]
    assert isinstance(verdict, Moved), "the first claim was for the other digest"
    assert verdict.sighting.digest == OLD


def test_an_append_that_was_sent_may_finish_after_the_deadline_and_logs_the_claimed_digest(
    dev: DevSigstore, store: Path
) -> None:
    parts = Parts(dev, store)
    dev.faults.set("log:late")
    with pytest.raises(DeadlineExceeded):
        parts.recorder().observe(TAG, OLD, seconds(1))
    dev.faults.set("")
    eventually(lambda: parts.store.sighting(TAG) is not None)
    assert isinstance(Parts(dev, store).recorder().observe(TAG, OLD, seconds(10)), Same)
    assert dev.calls["append"] == 1


# --- the cache ------------------------------------------------------------------------------------------------------


class FastTime(Threads):
    """Real threads, and a clock that a test pushes forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


def test_a_verified_sighting_is_believed_for_ten_minutes_at_most(dev: DevSigstore, store: Path) -> None:
    parts, runtime = Parts(dev, store), FastTime()
    parts.runtime = runtime
    recorder = parts.recorder()
    recorder.observe(TAG, OLD, seconds(10))
    tamper(store, b"{}")
    assert isinstance(recorder.observe(TAG, OLD, seconds(10)), Same)
    runtime.ahead = CACHE_S + 1
    with pytest.raises(RecordInvalid):
        recorder.observe(TAG, OLD, seconds(10))


def test_what_was_verified_under_another_trust_root_is_verified_again(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    recorder = parts.recorder()
    recorder.observe(TAG, OLD, seconds(10))
    tamper(store, b"{}")
    parts.trust.refresh()
    with pytest.raises(RecordInvalid):
        recorder.observe(TAG, OLD, seconds(10))


def test_a_store_that_fails_is_never_first_seen(dev: DevSigstore, store: Path) -> None:
    store.write_bytes(b"this is no database at all, and long enough to be read as one" * 50)
    with pytest.raises(StoreUnavailable):
        Parts(dev, store).recorder().observe(TAG, OLD, seconds(10))
    assert dev.calls["append"] == 0


def test_a_race_of_instances_and_threads_agrees_on_one_digest(dev: DevSigstore, store: Path) -> None:
    instances = [Parts(dev, store).recorder() for _ in range(3)]
    tags = [Tag.parse(f"race/app:{number}") for number in range(10)]
    seen: list[tuple[Tag, object]] = []

    def run(number: int) -> None:
        for turn, tag in enumerate(tags):
            digest = (OLD, NEW)[(number + turn) % 2]
            try:
                seen.append((tag, instances[number % 3].observe(tag, digest, seconds(30))))
            except Unavailable as error:
                seen.append((tag, error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 60
    assert not [verdict for _, verdict in seen if isinstance(verdict, Unavailable)]
    for tag in tags:
        verdicts = [verdict for which, verdict in seen if which == tag]
        assert len({verdict.sighting.digest for verdict in verdicts if isinstance(verdict, (Same, Moved))}) == 1
        assert len(digests_logged(dev.url, tag)) == 1
