"""Every step of a request by tag fails in every way, and the service is killed there, through the real processes.

After each cell of `table.py`: no wrong byte was served, the log holds one digest for the tag at most, the next request gets the
right answer, and nobody waited for longer than the deadline.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING

import pytest

from lib.store.firestore import CALL_S
from tests.faults.play import Outcome, Outcomes, Player
from tests.faults.table import FAULTS, IN_A_FILE, KILLED, NO_ROWS, NOT_RUN, STEPS, Cell, cells
from tests.faults.world import FIRST, MOVED, Asked, Backend, logged

if TYPE_CHECKING:
    from pathlib import Path

    from lib.config import BaseUrl
    from tests.faults.world import Store
    from tests.firestore import FirestoreEmulator

SLACK_S = 3.0  # two busy cores


def played(folder: Path, store: Store, report: list[str], emulator: BaseUrl | None = None) -> Outcomes:
    """All cells with one store."""
    started = time.monotonic()
    with Backend(folder, store, emulator) as backend:
        player = Player(backend)
        player.play()
    outcomes = player.outcomes
    outcomes.whole_log = logged(backend.sigstore, backend.directory.tags())
    outcomes.seconds = time.monotonic() - started
    report += summary(outcomes)
    return outcomes


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory, report: list[str]) -> Outcomes:
    return played(tmp_path_factory.mktemp("sqlite"), "sqlite", report)


@pytest.fixture(scope="module")
def firestore(tmp_path_factory: pytest.TempPathFactory, emulator: FirestoreEmulator, report: list[str]) -> Outcomes:
    return played(tmp_path_factory.mktemp("firestore"), "firestore", report, emulator.url)


@pytest.mark.slow
@pytest.mark.parametrize("cell", cells("sqlite"), ids=str)
def test_with_the_store_in_a_file(cell: Cell, sqlite: Outcomes) -> None:
    assert_right(sqlite.by_cell[cell], sqlite)


@pytest.mark.long
@pytest.mark.parametrize("cell", cells("firestore"), ids=str)
def test_with_the_store_in_firestore(cell: Cell, firestore: Outcomes) -> None:
    assert_right(firestore.by_cell[cell], firestore)


@pytest.mark.slow
def test_every_call_of_an_undisturbed_request_is_a_row_with_the_store_in_a_file(sqlite: Outcomes) -> None:
    assert_complete(sqlite)


@pytest.mark.long
def test_every_call_of_an_undisturbed_request_is_a_row_with_the_store_in_firestore(firestore: Outcomes) -> None:
    assert_complete(firestore)


def test_every_cell_is_run_or_says_why_not() -> None:
    run = {(cell.step.name, cell.fault) for cell in cells("firestore")}
    assert run | NOT_RUN.keys() == {(step.name, fault) for step in STEPS for fault in FAULTS}
    assert not run & NOT_RUN.keys()
    in_a_file = {(cell.step.name, cell.fault) for cell in cells("sqlite")}
    assert {name for name, _ in run - in_a_file} == {step.name for step in STEPS if step.gate == "store"}


def assert_right(outcome: Outcome, outcomes: Outcomes) -> None:
    cell = outcome.cell
    assert outcome.reached, "the request never came to this step"
    assert outcome.during is not None
    assert outcome.after is not None
    late = assert_during(cell, outcome.during)
    assert_in_time(outcome.after)

    recorded = outcome.after.recorded
    # It was to be answered, and got no further than it got; or the store's second attempt came through as the fault ended.
    unclear = late and (cell.answered == http.client.OK or (cell.step.gate == "store" and cell.fault == "hang"))
    assert recorded in (
        {FIRST, MOVED} if unclear and cell.moves else {FIRST if cell.promised or not cell.moves else MOVED}
    )
    assert_answer(outcome.after, offered=MOVED if cell.moves else FIRST, recorded=recorded)
    if cell.moves:
        assert outcome.back is not None
        assert_in_time(outcome.back)
        assert_answer(outcome.back, offered=FIRST, recorded=recorded)
    assert outcomes.whole_log[str(outcome.subject.tag)] == {recorded}


def assert_during(cell: Cell, during: Asked) -> bool:
    """What was answered while the fault was there; whether it was only the deadline that did."""
    if cell.fault in KILLED and during.answer is None:
        return False
    answer = during.answer
    assert answer is not None, "the connection died"
    assert_in_time(during)
    late = answer.status == http.client.SERVICE_UNAVAILABLE and during.seconds >= during.deadline_s
    if cell.fault in KILLED:  # and it came too late, on a slow machine
        given_up = cell.step.gate == "store" and answer.status == 503 and during.seconds >= CALL_S
        assert given_up or cell.step.name == "copy", "only the copy is not waited for"
    else:
        assert late or answer.status == cell.answered, answer.body
    if answer.status == http.client.OK:
        assert during.digest == FIRST
    else:
        assert int(answer.headers["retry-after"]) > 0
        for header in ("docker-content-digest", "etag", "tlog-logindex", "tlog-uuid", "tlog-first-seen"):
            assert header not in answer.headers
    return late


def assert_in_time(asked: Asked) -> None:
    assert asked.seconds <= asked.deadline_s + SLACK_S


def assert_answer(asked: Asked, *, offered: str, recorded: str | None) -> None:
    """200 with the recorded digest if it is offered, else 403 that names both."""
    answer = asked.answer
    assert answer is not None
    if offered == recorded:
        assert (answer.status, asked.digest) == (http.client.OK, recorded), answer.body
        return
    assert answer.status == http.client.FORBIDDEN, answer.body
    (error,) = json.loads(answer.body)["errors"]
    assert (error["detail"]["recorded"], error["detail"]["offered"]) == (recorded, offered)
    assert answer.headers["tlog-uuid"] == error["detail"]["uuid"]


def assert_complete(outcomes: Outcomes) -> None:
    made = {kind for calls in outcomes.undisturbed.values() for _, kind in calls}
    rows = {step.name for step in STEPS if outcomes.store == "firestore" or step.gate != "store"}
    assert made == {name for name in rows if name not in {"identity", "certificate"}}, "one is had already"


def summary(outcomes: Outcomes) -> list[str]:
    """The table: what was answered meanwhile, and then if the tag stays / if it moves."""
    width = 12
    lines = [
        f"{len(outcomes.by_cell)} cells with the store in {outcomes.store}: {outcomes.seconds:.0f} s",
        f"deadline {outcomes.deadline_s:.0f} s; answered: meanwhile, then / then if the tag has moved",
        "".join([f"{'':13}", *(f"{fault:{width}}" for fault in FAULTS)]),
    ]
    for step in STEPS:
        line = f"{step.name:13}"
        for fault in FAULTS:
            both = [outcomes.by_cell.get(Cell(step, fault, moves)) for moves in (False, True)]
            said = [f"{one.during} {one.after}" if one is not None and one.after is not None else "-" for one in both]
            line += f"{said[0] + '/' + said[1].rpartition(' ')[2] if '-' not in said else '-':{width}}"
        lines.append(line.rstrip())
    slow = sum(one.slow for one in outcomes.by_cell.values())
    lines.append(f"asked again because the machine missed the deadline: {slow}")
    lines += [f"not run: {step} x {fault}: {why}" for (step, fault), why in NOT_RUN.items()]
    if outcomes.store == "sqlite":
        lines.append(f"not run: rows of the store: {IN_A_FILE}")
        lines += [f"no row: {what}: {why}" for what, why in NO_ROWS.items()]
    return lines
