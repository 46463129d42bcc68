"""The loop: takes turns among the targets, counts, keeps what fails as small as it can.

A case fails if its target raises anything, or takes longer than HANGS_S, when it is broken off. How long the slowest took is
reported, not judged: machines are busy. A case that ends in a way that was not seen before joins those that are changed next.
"""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.mutation import WORDS, mutate, mutate_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from contextlib import AbstractContextManager

    Run = Callable[[bytes], Hashable]

HANGS_S = 30.0  # a regex that backtracks takes for ever; nothing else that is called here takes a second
EVERY_S = 5.0  # between lines of progress
TURN = 50  # cases of one target after another
POOL_MAX = 4000
FRESH = 0.3  # the share of cases that begin from the kept corpus, not from what was found on the way
FAILURES_MAX = 20  # different ones; then something is so broken that more of them say nothing
SMALLER = 300  # attempts to make a failing case smaller


class Hangs(BaseException):
    """The case took too long. Not an error that anything under test may catch."""


@dataclass(frozen=True, slots=True)
class Target:
    """`enter` gives what runs a case: to an outcome, by which cases are told apart, or to whatever it raises, a failure.

    `share` is how many of all cases are for it, in proportion.
    """

    name: str
    share: float
    enter: Callable[[], AbstractContextManager[Run]]
    words: tuple[bytes, ...] = ()
    json: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that failed, where it is kept, and why."""

    target: str
    path: Path
    why: str


@dataclass(slots=True)
class _Seat:
    """A target at work."""

    target: Target
    run: Run
    rng: random.Random
    seeds: list[bytes]
    pool: list[bytes]
    count: int = 0
    spent_s: float = 0.0
    slowest_s: float = 0.0
    seen: set[Hashable] = field(default_factory=set)


class Fuzzer:
    """One run. `corpus` has a folder for each target; what fails is written there."""

    def __init__(
        self,
        targets: Sequence[Target],
        corpus: Path,
        seed: int,
        say: Callable[[str], None],
        hangs_s: float = HANGS_S,
    ) -> None:
        self._targets = targets
        self._corpus = corpus
        self._seed = seed
        self._say = say
        self._hangs_s = hangs_s
        self._failures: dict[Hashable, Failure] = {}
        self._failed = 0

    def run(self, cases: int) -> bool:
        """So many cases in all; whether none failed."""
        started = said = time.monotonic()
        with ExitStack() as stack:
            seats = [self._seat(stack, target) for target in self._targets]
            done = 0
            for seat, number in _turns(seats, cases):
                for _ in range(number):
                    self._one(seat)
                done += number
                if time.monotonic() - said >= EVERY_S:
                    said = time.monotonic()
                    per_s = done / (said - started)
                    self._say(f"{done} of {cases} cases, {per_s:.0f} a second, {self._failed} failures")
                if len(self._failures) >= FAILURES_MAX:
                    self._say(f"{FAILURES_MAX} different failures: no use in going on")
                    break
        self._report(seats, done, time.monotonic() - started)
        return not self._failures

    def repeat(self, paths: Iterable[Path]) -> bool:
        """The kept cases of these files; whether none failed."""
        well = True
        with ExitStack() as stack:
            seats: dict[str, _Seat] = {}
            for path in paths:
                name = path.resolve().parent.name
                if name not in seats:
                    (target,) = (target for target in self._targets if target.name == name)
                    seats[name] = self._seat(stack, target)
                signature, said = _tried(seats[name].run, path.read_bytes(), self._hangs_s)
                self._say(f"{path}: {said}")
                well = well and signature is None
        return well

    def _seat(self, stack: ExitStack, target: Target) -> _Seat:
        folder = self._corpus / target.name
        seeds = [path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()] or [b""]
        run = stack.enter_context(target.enter())
        return _Seat(target, run, random.Random(f"{self._seed} {target.name}"), seeds, list(seeds))  # noqa: S311 - repeatable

    def _one(self, seat: _Seat) -> None:
        """The corpus itself first, then changes of it."""
        if seat.count < len(seat.seeds):
            case = seat.seeds[seat.count]
        else:
            rng = seat.rng
            base = rng.choice(seat.seeds if rng.random() < FRESH else seat.pool)
            change = mutate_json if seat.target.json else mutate
            case = change(base, seat.pool, seat.target.words or WORDS, rng)
        seat.count += 1
        before = time.perf_counter()
        signature, said = _tried(seat.run, case, self._hangs_s)
        took = time.perf_counter() - before
        seat.spent_s += took
        seat.slowest_s = max(seat.slowest_s, took)
        if signature is not None:
            self._failed += 1
            self._keep(seat, case, signature, said)
        elif said not in seat.seen:
            seat.seen.add(said)
            if len(seat.pool) < POOL_MAX:
                seat.pool.append(case)

    def _keep(self, seat: _Seat, case: bytes, signature: Hashable, why: str) -> None:
        key = (seat.target.name, signature)
        if key in self._failures:
            return
        case = _smaller(seat.run, case, signature, self._hangs_s)
        path = self._corpus / seat.target.name / f"failed-{sha256(case).hexdigest()[:12]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case)
        self._failures[key] = Failure(seat.target.name, path, why)
        self._say(f"FAILED {seat.target.name}: {case[:300]!r}\n{why}\nrepeat it: python -m tests.fuzz --repeat {path}")

    def _report(self, seats: Sequence[_Seat], done: int, took_s: float) -> None:
        for seat in seats:
            self._say(
                f"  {seat.target.name:<14}{seat.count:>8} cases{len(seat.seen):>6} outcomes"
                f"{seat.spent_s:>8.1f} s, slowest {seat.slowest_s * 1000:.0f} ms"
            )
        for failure in self._failures.values():
            self._say(f"FAILED {failure.target}: {failure.path}")
        self._say(
            f"{done} cases in {took_s:.0f} s with seed {self._seed}: {self._failed} failed, "
            f"{len(self._failures)} different failures"
        )


def _turns(seats: Sequence[_Seat], cases: int) -> Iterable[tuple[_Seat, int]]:
    """Every target gets its share, a little at a time."""
    ends = list(accumulate(seat.target.share for seat in seats))
    due = [round(cases * end / ends[-1]) for end in ends]
    due = [end - begin for begin, end in pairwise([0, *due])]
    rounds = max(1, int(cases / TURN / len(seats)))
    for number in range(rounds):
        for seat, whole in zip(seats, due, strict=True):
            yield seat, whole * (number + 1) // rounds - whole * number // rounds


def _tried(run: Run, case: bytes, hangs_s: float) -> tuple[Hashable | None, str]:
    """None and the outcome; or what tells this failure from others, and what is to be said of it."""

    def broken_off(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, broken_off)
    signal.setitimer(signal.ITIMER_REAL, hangs_s)
    try:
        return None, str(run(case))
    except Hangs:
        place = traceback.extract_tb(sys.exc_info()[2])[-1]
        return "hangs", f"took longer than {hangs_s:g} s, in {place.name} of {place.filename}:{place.lineno}"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        places = traceback.extract_tb(error.__traceback__)
        signature = (type(error).__name__, Path(places[-1].filename).name, places[-1].lineno)
        return signature, "".join(traceback.format_exception(error)[-6:]).rstrip()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _smaller(run: Run, case: bytes, signature: Hashable, hangs_s: float) -> bytes:
    """Pieces are left out for as long as it fails in the same way."""
    if signature == "hangs":
        return case
    piece, attempts = max(1, len(case) // 2), 0
    while piece and attempts < SMALLER:
        at = 0
        while at < len(case) and attempts < SMALLER:
            shorter = case[:at] + case[at + piece :]
            attempts += 1
            if _tried(run, shorter, hangs_s)[0] == signature:
                case = shorter
            else:
                at += piece
        piece //= 2
    return case
