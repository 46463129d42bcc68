"""What the instances share, a store and a log, and everything that can happen to them next: pure values and functions.

A `State` is all that the future depends on: the store, the log, messages that were sent and whose sender has given up, and the
position of each instance. Beside that it holds what the judgement of later moves needs (*ghosts*): no instance sees them.

A `Move` is one thing that happens, at once:

    (instance, "ok")          its call is made and answered. For a search: the index is complete
    (instance, "failed")      its call fails and has done nothing
    (instance, "lost")        the call is made, and the answer is lost
    (instance, "late")        the answer is lost, and the call may still be made: any time later ("deliver"), or never
    (instance, "repeated")    put_claim, repeated by the store's client: made, and told that it was there before
    (instance, "… no copy")   an append whose readable copy is not logged; "failed copy": only the copy is
    (instance, "misses …")    a search for which the index names nothing ("all"), or not the earliest so many entries
    (instance, "crash")       it vanishes before its call
    (instance, "too late")    its request's time is over before its call
    ("loss", 0)               the store is empty from here: once
    ("deliver", number)       a late message arrives
    ("expire", 0)             the claim is gone, once: only for a broken store
    ("next", digest)          nobody is left, and somebody comes who observes `digest` and meets no trouble

Calls that only read fail in one way: that an answer got lost is the same to everybody. What each call does to the store is
the contract of `lib/store/store.py` (`live.py` compares it with SqliteStore); the search is that of `lib/sighting/rekor.py`:
the earliest entry that the index names, if a candidate or a copy explains it. A log that cannot be searched is to the recorder
what an index that names nothing is.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from tests.interleavings.collaborators import FAILED, Place
from tests.interleavings.instance import TOO_LATE, Position, real
from tests.interleavings.promises import excuses, judge

if TYPE_CHECKING:
    from tests.interleavings.collaborators import Answer, Value
    from tests.interleavings.instance import Build

Move = tuple[int | str, int | str]


class Entry(NamedTuple):
    """An entry of the log. `gap` (a ghost): the store was lost between its maker's last look and the log's receipt of it."""

    digest: int
    gap: bool


class Sent(NamedTuple):
    """A call on its way to the store or the log; the rest, for an append, is `Slot`'s ghosts and whether a copy goes along."""

    name: str
    about: int
    searched: int = 0
    missed: bool = False
    gap: bool = False
    copied: bool = False


class Slot(NamedTuple):
    """An instance, and its ghosts."""

    position: Position
    searched: int = 0  # how long the log was when it searched
    missed: bool = False  # whether that was after the store was lost, and the index missed entries
    gap: bool = False  # whether the store was lost since its last look at the claim
    made: int | None = None  # the entry that it appended, if it was told so


class State(NamedTuple):
    """Everything. Ghosts: `recorded`, the entries that the store has ever kept as the tag's sighting; `excuses`, of the log."""

    slots: tuple[Slot | None, ...]
    claim: int | None = None
    sighting: int | None = None
    log: tuple[Entry, ...] = ()
    copies: frozenset[int] = frozenset()
    sent: tuple[Sent, ...] = ()
    lost: bool = False
    expired: bool = False
    last: int | None = None  # what the last one observes, once it has come
    recorded: tuple[int, ...] = ()
    excuses: int = 0


class Rules(NamedTuple):
    """Whose instances these are, and what may happen to them."""

    build: Build = real
    lossy: bool = True
    crashes: bool = True
    faults: bool = True
    loss: bool = True
    expiring: bool = False
    last: tuple[int, ...] = (0, 1, 2)


@cache
def _beginning(build: Build, requests: tuple[int, ...]) -> Slot:
    """An instance before its first call. Cached: all states share the positions that follow it."""
    return Slot(Position(build, requests))


def start(rules: Rules, *instances: tuple[int, ...]) -> State:
    """Nothing has happened; each instance is given by the digests that its requests observe, one after another."""
    return State(tuple(_beginning(rules.build, requests) for requests in instances))


# --- what can happen --------------------------------------------------------------------------------------------------


def moves(state: State, rules: Rules) -> list[Move]:
    """Everything that can happen next. Nothing: all is over."""
    found: list[Move] = [("deliver", number) for number in range(len(state.sent))]
    over = True
    for number, slot in enumerate(state.slots):
        if slot is not None:
            over = False
            found += [(number, way) for way in _ways(state, slot.position, rules)]
    if state.last is None:
        if rules.loss and not state.lost and (state.claim is not None or state.sighting is not None):
            found.append(("loss", 0))
        if rules.expiring and not state.expired and state.claim is not None:
            found.append(("expire", 0))
        if over:
            found += [("next", digest) for digest in rules.last]
    return found


def _ways(state: State, position: Position, rules: Rules) -> list[str]:
    """How the call of one instance can go. Left out is what has the same effect as something that is in."""
    assert position.call is not None
    name, about = position.call
    ways = ["ok"]
    if name == "search" and rules.lossy and state.log:
        ways += ["misses all", *(f"misses {number}" for number in range(1, len(state.log)))]
    if state.last is not None:
        return ways
    if rules.crashes:
        ways.append("crash")
    if not rules.faults:
        return ways
    ways.append("failed")
    if position.history and not position.late:
        ways.append("too late")
    if name == "put_claim" and state.claim is None:
        ways += ["lost", "late", "repeated"]
    elif name == "put_sighting" and state.sighting is None:
        ways += ["lost", "late"]
    elif name == "append":
        ways += ["lost", "late"]
        if about not in state.copies:
            ways += ["ok no copy", "lost no copy", "late no copy", "failed copy"]
    return ways


# --- what then is -----------------------------------------------------------------------------------------------------


def follow(state: State, move: Move, rules: Rules) -> State:
    """The state after `move`. Raises Violation if a promise is broken."""
    who, what = move
    if isinstance(who, int) and isinstance(what, str):
        if what == "crash":
            return _with(state, who, None)
        state, slot, answer = called(state, who, what)
        before, position = slot.position, slot.position.after(answer)
        for number in range(len(before.outcomes), len(position.outcomes)):
            judge(state, slot, position, number)
        return _with(state, who, slot._replace(position=position) if position.call is not None else None)
    assert isinstance(what, int)
    if who == "deliver":
        sent = state.sent[what]
        return _arrived(state._replace(sent=(*state.sent[:what], *state.sent[what + 1 :])), sent)
    if who == "loss":
        return _lost(state)
    if who == "expire":
        return state._replace(claim=None, expired=True)
    assert who == "next"
    return state._replace(slots=(_beginning(rules.build, (what,)),), last=what)


def called(state: State, who: int, way: str) -> tuple[State, Slot, Answer]:
    """The call of one instance is made, or not: the state and its ghosts thereafter, and what it is told."""
    slot = state.slots[who]
    assert slot is not None
    assert slot.position.call is not None
    name, about = slot.position.call
    if way == "too late":
        return state, slot, TOO_LATE
    if way == "failed":
        return state, slot, FAILED
    if name == "search":
        return _search(state, slot, about, way)
    if name == "append":
        return _append(state, slot, about, way)
    return _stored(state, slot, name, about, way)


def _stored(state: State, slot: Slot, name: str, about: Value, way: str) -> tuple[State, Slot, Answer]:
    """A call to the store, or one that touches nothing."""
    said: Value = None
    if name == "sighting":
        said = _place(state, state.sighting)
    elif name == "claim":
        said = state.claim
    elif name in {"put_claim", "put_sighting"}:
        number = about.log_index if isinstance(about, Place) else about
        assert isinstance(number, int)
        created = state.claim is None and way != "repeated"
        state = _sent(state, Sent(name, number), way)
        if way not in {"late", "lost"}:
            said = _place(state, state.sighting) if name == "put_sighting" else (_present(state.claim), created)
    return state, slot, FAILED if way in {"late", "lost"} else ("ok", said)


def _search(state: State, slot: Slot, candidates: Value, way: str) -> tuple[State, Slot, Answer]:
    """The earliest entry that the index names, if something explains it."""
    assert isinstance(candidates, tuple)
    missed = 0 if way == "ok" else len(state.log) if way == "misses all" else int(way.removeprefix("misses "))
    slot = slot._replace(searched=len(state.log), missed=missed > 0 and state.lost)
    if missed == len(state.log):
        return state, slot, ("nothing", None)
    digest = state.log[missed].digest
    if digest in candidates or digest in state.copies:
        return state, slot, ("found", Place(missed, digest))
    return state, slot, ("unexplained", digest)


def _append(state: State, slot: Slot, digest: Value, way: str) -> tuple[State, Slot, Answer]:
    assert isinstance(digest, int)
    if way == "failed copy":
        return state._replace(copies=state.copies | {digest}), slot, FAILED
    how, _, no_copy = way.partition(" ")
    index = len(state.log)
    sent = Sent("append", digest, slot.searched, slot.missed, slot.gap, copied=not no_copy)
    state, slot = _sent(state, sent, how), slot._replace(gap=False)
    if how != "ok":
        return state, slot, FAILED
    return state, slot._replace(made=index), ("ok", Place(index, digest))


def _sent(state: State, sent: Sent, way: str) -> State:
    """On its way, or there. In which order messages were sent is of no consequence."""
    return state._replace(sent=tuple(sorted((*state.sent, sent)))) if way == "late" else _arrived(state, sent)


def _arrived(state: State, sent: Sent) -> State:
    """The store or the log receives it."""
    if sent.name == "put_claim":
        return state._replace(claim=sent.about) if state.claim is None else state
    if sent.name == "put_sighting":
        if state.sighting is not None:
            return state
        return state._replace(sighting=sent.about, recorded=tuple(sorted({*state.recorded, sent.about})))
    return state._replace(
        log=(*state.log, Entry(sent.about, sent.gap)),
        copies=state.copies | {sent.about} if sent.copied else state.copies,
        excuses=state.excuses | excuses(state.log, sent),
    )


def _lost(state: State) -> State:
    return state._replace(
        claim=None,
        sighting=None,
        lost=True,
        slots=tuple(
            slot._replace(gap=True) if slot is not None and slot.position.looked_last() else slot
            for slot in state.slots
        ),
        sent=tuple(sorted(sent._replace(gap=sent.name == "append") for sent in state.sent)),
    )


def _with(state: State, who: int, slot: Slot | None) -> State:
    return state._replace(slots=(*state.slots[:who], slot, *state.slots[who + 1 :]))


def _place(state: State, index: int | None) -> Place | None:
    return None if index is None else Place(index, state.log[index].digest)


def _present(digest: int | None) -> int:
    assert digest is not None
    return digest
