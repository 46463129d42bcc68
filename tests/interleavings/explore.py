"""Schedules: all of them, or a sample. Each is a list of moves from the start until nothing more can happen.

Pruning. A state that was visited is not entered again. That loses nothing: what can happen next, what then is, and how it is
judged are functions of the state alone. For a recorder's position is its history (`instance.py`), instances meet only in the
store and the log, which are in the state whole, and what the judgement wants to know of the past is in the state, too. Every
move leads on (each call is answered once, the store is lost once), so that there are no circles, and the number of schedules
through a state is the sum of those through its successors. That walking through each schedule counts as many is tested on
small worlds.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from tests.interleavings.promises import GAP, MISSED, Violation
from tests.interleavings.world import follow, moves, start

if TYPE_CHECKING:
    from random import Random

    from tests.interleavings.world import Move, Rules, State

DEEP = 5_000  # Python frames; a schedule has under 200 moves
WELL = 8  # that much more often than anything else, a sampled call goes well: trouble everywhere gets nowhere


class Counts(NamedTuple):
    """How many schedules there are, by how many digests the log shows in the end, and why more than one."""

    one: int = 0
    gap: int = 0
    missed: int = 0
    both: int = 0

    @classmethod
    def of(cls, state: State) -> Counts:
        kind = state.excuses
        return cls(kind == 0, kind == GAP, kind == MISSED, kind == GAP | MISSED)

    def plus(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def __str__(self) -> str:
        return (
            f"{_short(sum(self))} schedules (two digests in {_short(self.gap)} by a store lost in the gap, in"
            f" {_short(self.missed)} by an index that missed an entry, in {_short(self.both)} by both)"
        )


def _short(number: int) -> str:
    return f"{number:,}" if number < 10**6 else f"{number:.2e}"


class Exploration:
    """Every schedule of a world."""

    def __init__(self, rules: Rules, *instances: tuple[int, ...], prune: bool = True) -> None:
        self._rules = rules
        self._instances = instances
        self._prune = prune
        self._counted: dict[State, Counts] = {}
        self._trail: list[Move] = []
        self.moves = 0
        self.violations: dict[str, str] = {}

    @property
    def states(self) -> int:
        return len(self._counted)

    def run(self) -> Counts:
        """How many schedules there are; in `violations`, for each kind of broken promise, how one comes about."""
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(DEEP)
        try:
            return self._count(start(self._rules, *self._instances))
        finally:
            sys.setrecursionlimit(limit)

    def _count(self, state: State) -> Counts:
        counted = self._counted.get(state) if self._prune else None
        if counted is not None:
            return counted
        options = moves(state, self._rules)
        counted = Counts() if options else Counts.of(state)
        for move in options:
            self.moves += 1
            self._trail.append(move)
            try:
                counted = counted.plus(self._count(follow(state, move, self._rules)))
            except Violation as violation:
                kind, _, _ = str(violation).partition(":")
                self.violations.setdefault(kind, f"{violation}, after {self._trail}")
            self._trail.pop()
        if self._prune:
            self._counted[state] = counted
        return counted


def walk(rules: Rules, instances: tuple[tuple[int, ...], ...], random: Random) -> tuple[list[Move], State]:
    """One schedule at random, and how it ends. Raises Violation, with the moves that led to it."""
    state = start(rules, *instances)
    trail: list[Move] = []
    well = random.choice((1, WELL, WELL * WELL))
    try:
        while options := moves(state, rules):
            weights = [well if way == "ok" else 1 for _, way in options]
            trail.append(random.choices(options, weights)[0])
            state = follow(state, trail[-1], rules)
    except Violation as violation:
        msg = f"{violation}, after {trail}"
        raise Violation(msg) from violation
    return trail, state
