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
    Overloaded,
    RecordInvalid,
    SignerUnavailable,
    StoreUnavailable,
    TlogistryError,
    Unavailable,
)
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.recorder import CACHE_S, WAITING, Moved, Same
from lib.sighting.statement import statement
from tests.seams import STEPS, Asked, FailingStore, Gate, NoThreads, OwnTime, StillTime, StuckLog, frozen
from tests.sigstore import Parts, digests_logged, logged, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lib.deadline import Deadline
    from lib.devsigstore.server import DevSigstore
    from lib.sighting.sighting import Record

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
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, "did not happen in 60 s"
        time.sleep(0.01)


def test_first_sighting_is_recorded_and_the_second_request_is_compared(dev: DevSigstore, store: Path) -> None:
    recorder = Parts(dev, store).recorder()
    first = recorder.observe(TAG, OLD, seconds(30))
    assert isinstance(first, Same)
    assert first.first_seen
    assert recorder.observe(TAG, OLD, seconds(30)) == Same(first.sighting, first_seen=False)
    assert recorder.observe(TAG, NEW, seconds(30)) == Moved(first.sighting, NEW)
    assert dev.calls["append"] == 1
    assert sorted(kind for kind, _ in logged(dev.url, TAG)) == ["dsse", "intoto"]


def test_another_instance_and_a_restart_remember(dev: DevSigstore, store: Path) -> None:
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
    assert Parts(dev, store).recorder().observe(TAG, OLD, seconds(30)) == Same(made.sighting, first_seen=False)
    assert Parts(dev, store).recorder().observe(TAG, NEW, seconds(30)) == Moved(made.sighting, NEW)


def test_a_recorded_tag_costs_no_call_to_the_log(dev: DevSigstore, store: Path) -> None:
    Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
    recorder = Parts(dev, store).recorder()
    before = dict(dev.calls)
    for _ in range(3):
        recorder.observe(TAG, OLD, seconds(30))
    assert dict(dev.calls) == before


def test_certificates_are_used_again(dev: DevSigstore, store: Path) -> None:
    recorder = Parts(dev, store).recorder()
    for number in range(5):
        recorder.observe(Tag.parse(f"app:{number}"), OLD, seconds(30))
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
    runtime = OwnTime()
    recorder = Parts(dev, store, runtime=runtime).recorder()
    dev.faults.set(fault)
    request = Asked(recorder, TAG, OLD, runtime.deadline(30))
    if error is DeadlineExceeded:
        eventually(lambda: dev.calls["append" if fault == "log:late" else "certificate"] == 1)
        runtime.ahead = 60
    assert isinstance(request.outcome(), error)
    dev.faults.set("")
    runtime.ahead = 0
    verdict = recorder.observe(TAG, NEW, seconds(30))
    assert verdict.sighting.digest == OLD, "the claim was for the digest of the first request"
    assert isinstance(verdict, Moved)
    eventually(lambda: len(digests_logged(dev.url, TAG)) == 1)


def test_proof_that_does_not_verify_makes_an_orphan_that_is_never_stored(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    recorder = parts.recorder()
    recorder.observe(Tag.parse("app:first"), OLD, seconds(30))
    dev.faults.set("proof:bad")
    with pytest.raises(RecordInvalid):
        recorder.observe(TAG, OLD, seconds(5))
    assert parts.store.sighting(TAG) is None
    assert parts.telemetry.counters()["orphan"] == 1
    dev.faults.set("")
    assert isinstance(recorder.observe(TAG, OLD, seconds(30)), Same)
    assert len(digests_logged(dev.url, TAG)) == 1


def test_a_failed_copy_is_counted_and_blocks_nothing(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    dev.faults.set("copy:before")
    assert isinstance(parts.recorder().observe(TAG, OLD, seconds(30)), Same)
    assert parts.telemetry.counters()["copy_failed"] == 1
    assert [kind for kind, _ in logged(dev.url, TAG)] == ["dsse"]


@pytest.mark.parametrize("time_s", [30, 2], ids=["long", "short"])
def test_an_abandoned_claim_is_finished_by_whoever_comes_next(dev: DevSigstore, store: Path, time_s: float) -> None:
    """Also by one who has no more time than a claim's maker is given."""
    runtime = StillTime()
    parts = Parts(dev, store, runtime=runtime)
    parts.store.put_claim(TAG, OLD)  # and its maker was killed
    verdict = parts.recorder().observe(TAG, NEW, runtime.deadline(time_s))
    assert verdict == Moved(verdict.sighting, NEW)
    assert verdict.sighting.digest == OLD


def test_a_claim_that_was_signed_but_not_stored_is_adopted_from_the_log(
    dev: DevSigstore, store: Path, tmp_path: Path
) -> None:
    other = Parts(dev, tmp_path / "other.sqlite").recorder().observe(TAG, OLD, seconds(30))
    parts = Parts(dev, store)
    parts.store.put_claim(TAG, OLD)
    verdict = parts.recorder().observe(TAG, OLD, seconds(30))
    assert verdict == Same(other.sighting, first_seen=False), "an adopted record is not first seen"
    assert dev.calls["append"] == 1


def test_the_store_is_lost_and_the_old_digest_is_found_in_the_log(dev: DevSigstore, store: Path) -> None:
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
    lose(store)
    assert Parts(dev, store).recorder().observe(TAG, NEW, seconds(30)) == Moved(made.sighting, NEW)
    assert Parts(dev, store).recorder().observe(TAG, OLD, seconds(30)) == Same(made.sighting, first_seen=False)
    assert len(digests_logged(dev.url, TAG)) == 1


def test_the_store_is_lost_without_a_readable_copy_and_the_entry_is_named(dev: DevSigstore, store: Path) -> None:
    dev.faults.set("copy:before")
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
    dev.faults.set("")
    lose(store)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=made.sighting.uuid):
            Parts(dev, store).recorder().observe(TAG, NEW, seconds(30))
    assert len(digests_logged(dev.url, TAG)) == 1
    assert dev.calls["append"] == 1


def test_the_right_digest_explains_an_entry_without_a_copy(dev: DevSigstore, store: Path) -> None:
    dev.faults.set("copy:before")
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
    dev.faults.set("")
    lose(store)
    assert Parts(dev, store).recorder().observe(TAG, OLD, seconds(30)) == Same(made.sighting, first_seen=False)


def test_adopt_completes_a_stuck_tag_and_cannot_lie(dev: DevSigstore, store: Path) -> None:
    dev.faults.set("copy:before")
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
    dev.faults.set("")
    lose(store)
    recorder = Parts(dev, store).recorder()
    with pytest.raises(LogUnavailable, match=made.sighting.uuid):
        recorder.observe(TAG, NEW, seconds(30))
    with pytest.raises(LogUnavailable):
        recorder.adopt(TAG, NEW, seconds(30))
    assert recorder.adopt(TAG, OLD, seconds(30)).sighting == made.sighting
    assert recorder.observe(TAG, NEW, seconds(30)) == Moved(made.sighting, NEW)
    assert recorder.adopt(TAG, OLD, seconds(30)).sighting == made.sighting, "again: nothing changes"
    with pytest.raises(RecordInvalid, match=str(OLD)):
        recorder.adopt(TAG, NEW, seconds(30))


def test_adopt_of_a_tag_that_was_never_logged_is_refused(dev: DevSigstore, store: Path) -> None:
    with pytest.raises(LogUnavailable, match="no entry of ours"):
        Parts(dev, store).recorder().adopt(TAG, OLD, seconds(30))


def test_a_switched_off_search_still_records(dev: DevSigstore, store: Path) -> None:
    assert isinstance(Parts(dev, store, search=False).recorder().observe(TAG, OLD, seconds(30)), Same)
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
    parts.recorder().observe(Tag.parse("my-user/my-app:v1.2.4"), OLD, seconds(30))
    return parts.store.sighting(Tag.parse("my-user/my-app:v1.2.4")) or b""


def _truncated(dev: DevSigstore, tmp_path: Path, bundle: bytes) -> bytes:
    return bundle[: len(bundle) // 2]


def _other_identity(dev: DevSigstore, tmp_path: Path, bundle: bytes) -> bytes:
    parts = Parts(dev, tmp_path / "theirs.sqlite", search=False, email="somebody-else@not-for-production.invalid")
    parts.recorder().observe(TAG, OLD, seconds(30))
    return parts.store.sighting(TAG) or b""


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
    first.recorder().observe(TAG, OLD, seconds(30))
    bundle = first.store.sighting(TAG)
    assert bundle is not None
    tamper(store, forge(dev, tmp_path, bundle))
    for digest in (OLD, NEW):
        parts = Parts(dev, store)
        with pytest.raises(RecordInvalid, match=says):
            parts.recorder().observe(TAG, digest, seconds(30))
        assert any("does not verify" in line and str(TAG.familiar) in line for line in parts.lines)


# --- freezing: a test owns each call to a collaborator ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "too_late", "search"),
    [
        # between the last look at the claim and the append there is only the deadline
        *((step, late, True) for step in STEPS for late in (False, True) if late or step != "after last look"),
        # without a search there is only the last look; what was appended before cannot be seen
        *((step, late, False) for step in STEPS[:-2] for late in (False, True) if step != "after search"),
        ("after last look", True, False),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[0],
)
def test_the_store_is_lost_while_an_instance_is_frozen(
    dev: DevSigstore, store: Path, where: str, *, too_late: bool, search: bool
) -> None:
    gate, runtime = Gate(), OwnTime()
    request = Asked(frozen(where, dev, store, gate, runtime, search=search).recorder(), TAG, OLD, runtime.deadline(30))
    gate.reached()
    if too_late:
        runtime.ahead = 60
        assert isinstance(request.outcome(), DeadlineExceeded)
    lose(store)
    verdict = Parts(dev, store, search=search).recorder().observe(TAG, NEW, seconds(30))
    gate.open()
    outcome = request.outcome()
    runtime.join()
    assert len(digests_logged(dev.url, TAG)) == 1
    if isinstance(outcome, (Same, Moved)):
        assert outcome.sighting.digest == verdict.sighting.digest
    else:
        assert isinstance(outcome, Unavailable)
    again = Parts(dev, store, search=search).recorder().observe(TAG, NEW, seconds(30))
    assert again.sighting.digest == verdict.sighting.digest


def test_the_store_is_lost_while_an_instance_is_frozen_that_completes_the_claim_of_another(
    dev: DevSigstore, store: Path
) -> None:
    gate, runtime = Gate(), OwnTime()
    parts = frozen("before sign", dev, store, gate, runtime)
    parts.store.put_claim(TAG, OLD)  # and its maker was killed
    request = Asked(parts.recorder(), TAG, OLD, runtime.deadline(30))
    gate.reached()
    lose(store)
    assert isinstance(Parts(dev, store).recorder().observe(TAG, NEW, seconds(30)), Same)
    gate.open()
    assert isinstance(request.outcome(), StoreUnavailable)
    runtime.join()
    assert len(digests_logged(dev.url, TAG)) == 1


@pytest.mark.parametrize("where", STEPS[:-1])
def test_an_instance_that_wakes_after_its_deadline_appends_nothing(dev: DevSigstore, store: Path, where: str) -> None:
    gate, runtime = Gate(), OwnTime()
    request = Asked(frozen(where, dev, store, gate, runtime).recorder(), TAG, OLD, runtime.deadline(30))
    gate.reached()
    runtime.ahead = 60
    assert isinstance(request.outcome(), DeadlineExceeded)
    gate.open()
    runtime.join()
    assert (dev.calls["append"], dev.calls["copy"]) == (0, 0)
    claimed = Parts(dev, store).store.claim(TAG)
    assert Parts(dev, store).recorder().observe(TAG, NEW, seconds(30)).sighting.digest == (claimed or NEW)


def test_requests_that_wait_compare_the_recorded_digest_with_their_own(dev: DevSigstore, store: Path) -> None:
    gate, runtime = Gate(), OwnTime()
    recorder = frozen("before sign", dev, store, gate, runtime).recorder()
    requests = [Asked(recorder, TAG, OLD, runtime.deadline(30))]
    gate.reached()
    requests += [Asked(recorder, TAG, (OLD, NEW)[number % 2], runtime.deadline(30)) for number in range(1, 8)]
    eventually(lambda: runtime.waiting == 8)
    gate.open()
    verdicts = [request.outcome() for request in requests]
    assert [type(verdict) for verdict in verdicts] == [Same, Moved] * 4
    assert [isinstance(verdict, Same) and verdict.first_seen for verdict in verdicts] == [True] + [False] * 7
    assert dev.calls["append"] == 1


def test_a_waiting_request_keeps_its_own_deadline_and_leads_when_the_leader_gave_up(
    dev: DevSigstore, store: Path
) -> None:
    gate, runtime = Gate(), OwnTime()
    recorder = frozen("after search", dev, store, gate, runtime).recorder()
    leader = Asked(recorder, TAG, OLD, runtime.deadline(40))
    gate.reached()
    hasty, patient = (Asked(recorder, TAG, NEW, runtime.deadline(time_s)) for time_s in (20, 400))
    eventually(lambda: runtime.waiting == 3)
    runtime.ahead = 30
    assert isinstance(hasty.outcome(), DeadlineExceeded)
    runtime.ahead = 50
    assert isinstance(leader.outcome(), DeadlineExceeded)
    gate.open()
    verdict = patient.outcome()
    assert isinstance(verdict, Moved), "the first claim was for the other digest"
    assert verdict.sighting.digest == OLD


def test_an_append_that_was_sent_may_finish_after_the_deadline_and_logs_the_claimed_digest(
    dev: DevSigstore, store: Path
) -> None:
    runtime = OwnTime()
    parts = Parts(dev, store, runtime=runtime)
    dev.faults.set("log:late")
    request = Asked(parts.recorder(), TAG, OLD, runtime.deadline(30))
    eventually(lambda: dev.calls["append"] == 1)
    runtime.ahead = 60
    assert isinstance(request.outcome(), DeadlineExceeded)
    dev.faults.set("")
    runtime.join()
    assert parts.store.sighting(TAG) is not None
    assert isinstance(Parts(dev, store).recorder().observe(TAG, OLD, seconds(30)), Same)
    assert dev.calls["append"] == 1


# --- the cache ------------------------------------------------------------------------------------------------------


def test_a_verified_sighting_is_believed_for_ten_minutes_at_most(dev: DevSigstore, store: Path) -> None:
    runtime = OwnTime()
    parts = Parts(dev, store, runtime=runtime)
    recorder = parts.recorder()
    recorder.observe(TAG, OLD, seconds(30))
    tamper(store, b"{}")
    assert isinstance(recorder.observe(TAG, OLD, seconds(30)), Same)
    runtime.ahead = CACHE_S + 1
    with pytest.raises(RecordInvalid):
        recorder.observe(TAG, OLD, seconds(30))


def test_what_was_verified_under_another_trust_root_is_verified_again(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    recorder = parts.recorder()
    recorder.observe(TAG, OLD, seconds(30))
    tamper(store, b"{}")
    parts.trust.refresh()
    with pytest.raises(RecordInvalid):
        recorder.observe(TAG, OLD, seconds(30))


class ReplacingSigner:
    """The signer; and the trust root is replaced before the new record is stored."""

    def __init__(self, parts: Parts) -> None:
        self._signer, self._trust = parts.signer, parts.trust

    def sign(self, tag: Tag, digest: Digest, before_append: Callable[[], None], deadline: Deadline) -> Record:
        record = self._signer.sign(tag, digest, before_append, deadline)
        assert self._trust.refresh().generation == 2
        return record


def test_a_record_that_was_made_under_another_trust_root_is_verified_again(dev: DevSigstore, store: Path) -> None:
    parts = Parts(dev, store)
    parts.signer = ReplacingSigner(parts)
    recorder = parts.recorder()
    recorder.observe(TAG, OLD, seconds(30))
    tamper(store, b"{}")
    with pytest.raises(RecordInvalid):
        recorder.observe(TAG, OLD, seconds(30))


def test_a_claim_that_no_statement_can_make_is_the_stores_fault(dev: DevSigstore, store: Path) -> None:
    """A tag is recorded by sha256; who writes to the store must not be able to blame the client."""
    parts = Parts(dev, store)
    parts.store.put_claim(TAG, Digest.of(b"old", "sha512"))
    with pytest.raises(StoreUnavailable, match="sha512"):
        parts.recorder().observe(TAG, OLD, seconds(30))
    assert dev.calls["append"] == 0


# --- waiting rooms --------------------------------------------------------------------------------------------------


@pytest.fixture
def crowded(dev: DevSigstore, store: Path) -> Iterator[Crowd]:
    """An instance in which as many requests wait for the log as may."""
    crowd = Crowd(Parts(dev, store, runtime=(runtime := OwnTime())), runtime)
    yield crowd
    crowd.leave()


class Crowd:
    """Requests for tags of their own, all before a log that does not answer."""

    def __init__(self, parts: Parts, runtime: OwnTime) -> None:
        self.parts, self.runtime = parts, runtime
        self._log = parts.log = StuckLog()
        self.recorder = parts.recorder()
        self.requests = [
            Asked(self.recorder, Tag.parse(f"crowd:{number}"), OLD, runtime.deadline(50)) for number in range(WAITING)
        ]
        eventually(lambda: len(runtime.names) == WAITING)

    def leave(self) -> list[object]:
        self._log.open.set()
        return [request.outcome() for request in self.requests]


def test_a_full_waiting_room_refuses_at_once_and_starts_nothing(crowded: Crowd) -> None:
    for number in range(10):
        with pytest.raises(Overloaded):
            crowded.recorder.observe(Tag.parse(f"late:{number}"), OLD, seconds(50))
        assert crowded.parts.store.claim(Tag.parse(f"late:{number}")) is None
    assert len(crowded.runtime.names) == WAITING
    assert [type(outcome) for outcome in crowded.leave()] == [LogUnavailable] * WAITING
    with pytest.raises(LogUnavailable):  # the places are free again
        crowded.recorder.observe(TAG, OLD, seconds(50))


def test_a_recorded_tag_is_answered_while_the_waiting_room_is_full(
    dev: DevSigstore, store: Path, crowded: Crowd
) -> None:
    made = Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
    assert crowded.recorder.observe(TAG, NEW, seconds(30)) == Moved(made.sighting, NEW)


def test_a_host_without_threads_is_overloaded_and_the_next_request_leads(dev: DevSigstore, store: Path) -> None:
    runtime = NoThreads()
    recorder = Parts(dev, store, runtime=runtime).recorder()
    for _ in range(2):
        with pytest.raises(Overloaded):
            recorder.observe(TAG, OLD, seconds(30))
    runtime.full = False
    assert isinstance(recorder.observe(TAG, OLD, seconds(30)), Same)


# --- races ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True], ids=["failed", "failed but persisted"])
@pytest.mark.parametrize("call", ["sighting", "claim", "put_claim", "put_sighting"])
def test_a_call_to_the_store_that_fails_is_unavailable_and_nothing_is_said_twice(
    dev: DevSigstore, store: Path, call: str, *, done: bool
) -> None:
    parts = Parts(dev, store)
    parts.store = FailingStore(parts.store, call, done=done)
    recorder = parts.recorder()
    with pytest.raises(StoreUnavailable, match="the answer was lost"):
        recorder.observe(TAG, OLD, seconds(30))
    verdict = recorder.observe(TAG, NEW, seconds(30))
    claimed = call == "put_sighting" or (call == "put_claim" and done)
    assert verdict.sighting.digest == (OLD if claimed else NEW)
    assert isinstance(verdict, Moved if claimed else Same)
    assert dev.calls["append"] == 1, "what was logged is found again"
    assert len(digests_logged(dev.url, TAG)) == 1


def test_a_store_that_fails_is_never_first_seen(dev: DevSigstore, store: Path) -> None:
    store.write_bytes(b"this is no database at all, and long enough to be read as one" * 50)
    with pytest.raises(StoreUnavailable):
        Parts(dev, store).recorder().observe(TAG, OLD, seconds(30))
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
        assert [isinstance(verdict, Same) and verdict.first_seen for verdict in verdicts].count(True) <= 1
        assert len(digests_logged(dev.url, tag)) == 1
