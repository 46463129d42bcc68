"""What can happen to a store in a file, in the middle of a request: locked, full, read-only, lost. Killed is in the table.

Not here: a lock that stops readers. In WAL mode there is none but the one that is held while a connection is opened.
"""

from __future__ import annotations

import ctypes
import fcntl
import http.client
import os
import resource
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.faults.gate import passes
from tests.faults.play import DEADLINE_S, patiently
from tests.faults.test_table import assert_answer
from tests.faults.world import FIRST, MOVED, Backend, Stand
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.faults.gate import Call

SLACK_S = 1.5  # two busy cores; and less than SQLite would wait by itself
UNLIMITED = resource.RLIM_INFINITY
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # linux/prctl.h, linux/capability.h


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Backend(tmp_path_factory.mktemp("file"), "sqlite") as backend:
        with Stand(backend, "file", deadline_s=DEADLINE_S) as running:
            patiently(running, backend.subject("warm"))
            yield running


@contextmanager
def locked(stand: Stand) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    db = sqlite3.connect(stand.backend.file, isolation_level=None, timeout=DEADLINE_S, check_same_thread=False)
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
    finally:
        db.close()


@contextmanager
def full(stand: Stand) -> Iterator[None]:
    """No byte more can be written to any file."""
    pids = stand.pids()
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, UNLIMITED))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))


@contextmanager
def gone(stand: Stand) -> Iterator[None]:
    """Somebody has deleted it."""
    for path in stand.backend.folder.glob("store.sqlite*"):
        path.unlink()
    yield


@contextmanager
def opening(stand: Stand) -> Iterator[None]:
    """Another process is about to open it, and is frozen there; ours has just been started."""
    stand.kill()
    stand.start()
    with open(f"{stand.backend.file}-lock", "a") as lock:  # noqa: PTH123 - not a file of ours
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def read_only(stand: Stand) -> Iterator[None]:
    """Ours has just been started, and may not write to it."""
    stand.kill()
    _bound_by_permissions(stand.start)
    os.chmod(stand.backend.file, 0o444)  # noqa: PTH101 - beside the line that undoes it
    try:
        yield
    finally:
        os.chmod(stand.backend.file, 0o600)  # noqa: PTH101 - as above


def _bound_by_permissions(start: Callable[[], None]) -> None:
    """What root starts may write to anything; what this starts may not."""

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            dropped = libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
            assert dropped or os.geteuid() != 0, "root without the capability to give up one"
        start()

    failures: list[BaseException] = []

    def thread() -> None:  # a capability is given up for one thread, and for what it starts
        try:
            run()
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    starting = threading.Thread(target=thread)
    starting.start()
    starting.join()
    if failures:
        raise failures[0]


@dataclass(frozen=True)
class Case:
    """From the call `at` on (None: from before the request) the file is in trouble.

    `before`: as soon as the call is seen; else when it has been done. `first`: the digests that may be the tag's then.
    """

    trouble: Callable[[Stand], AbstractContextManager[None]]
    at: str | None
    status: int
    first: frozenset[str]
    before: bool = True

    def __str__(self) -> str:
        when = "from-the-start" if self.at is None else f"{'at' if self.before else 'after'}-{self.at}"
        return f"{self.trouble.__name__}-{when}".replace("_", "-")


ONE, OTHER, EITHER = frozenset({FIRST}), frozenset({MOVED}), frozenset({FIRST, MOVED})
CASES = (
    Case(locked, "challenge", 503, EITHER),  # put_claim waits, and may get through when the lock is gone
    Case(locked, "append", 503, ONE),  # put_sighting
    Case(full, "challenge", 503, OTHER),  # put_claim
    Case(full, "append", 503, ONE),  # put_sighting
    Case(gone, "challenge", 200, ONE),  # before anything is in it
    Case(gone, "index", 503, OTHER),  # the claim is gone: seen last before the append
    Case(gone, "append", 200, ONE, before=False),  # what is logged is recorded in a new one
    Case(opening, None, 503, OTHER),
    Case(read_only, None, 503, OTHER),  # the last: its service stays bound by permissions
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "moves"),
    [
        pytest.param(case, moves, id=f"{case}-{'moves' if moves else 'stays'}")
        for case in CASES
        for moves in ((False, True) if case.at is not None else (True,))  # these start a process
    ],
)
def test_a_file_in_trouble_is_no_reason_to_serve_or_log_a_second_digest(stand: Stand, case: Case, moves: bool) -> None:
    backend = stand.backend
    subject = backend.subject(f"{case}-{'moves' if moves else 'stays'}")
    trouble = case.trouble(stand)

    def begins(call: Call) -> None:
        if case.before:
            trouble.__enter__()
            passes(call)
        else:
            reply = call.forward()
            trouble.__enter__()
            call.reply(reply)

    if case.at is None:
        trouble.__enter__()
    else:
        subject.once[case.at, 1] = begins
    try:
        during = stand.ask(subject)
    finally:
        trouble.__exit__(None, None, None)

    assert during.seconds <= DEADLINE_S + SLACK_S
    late = during.status == http.client.SERVICE_UNAVAILABLE and during.seconds >= DEADLINE_S
    assert late or during.status == case.status
    assert during.digest in {FIRST, None}
    if moves:
        backend.move(subject, MOVED)
    after = patiently(stand, subject)
    recorded = after.recorded
    assert recorded in case.first if moves and not late else recorded in EITHER
    assert_answer(after, offered=MOVED if moves else FIRST, recorded=recorded)
    backend.move(subject, FIRST)
    assert_answer(patiently(stand, subject), offered=FIRST, recorded=recorded)
    assert len(digests_logged(backend.dev.url, subject.tag)) == 1
