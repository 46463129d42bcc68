"""What must hold in every schedule, judged when an entry reaches the log and when an instance answers.

1. The log shows at most one digest for the tag, but for exactly what the recorder's docstring leaves (`excuses`).
2. Nothing is served but the digest that the store has recorded, and no 403 is given for it.
3. A 200 and a 403 name an entry that the log has, of that digest, which the store has recorded.
4. "First seen" is said only by the request that made the record. Whatever failed is answered by a refusal.
5. Where the store was not lost, the recorded digest is the claimed one: an abandoned claim is finished, not replaced.
6. Who meets no trouble is not refused; nor is whoever comes last, whatever was abandoned before (after a lost store: unless
   the log holds an entry of ours that it cannot explain, nor could anybody who observes what it observes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interleavings.instance import Refused

if TYPE_CHECKING:
    from tests.interleavings.instance import Position, Served
    from tests.interleavings.world import Entry, Sent, Slot, State

GAP, MISSED = 1, 2


class Violation(AssertionError):
    """A promise is broken."""


def excuses(log: tuple[Entry, ...], new: Sent) -> int:
    """Why a log that now receives `new` may show two digests; 0: it does not. Raises Violation.

    For each entry of another digest, either MISSED: it was in the log when the new one's maker searched, after the store was
    lost, and the index missed it. Or GAP: it came after that search, and the store was lost between the last look at the claim
    and the log's receipt of this one or that one.
    """
    found = 0
    for index, entry in enumerate(log):
        if entry.digest == new.about:
            continue
        if index < new.searched and new.missed:
            found |= MISSED
        elif index >= new.searched and (entry.gap or new.gap):
            found |= GAP
        else:
            msg = f"the log shows two digests: {new.about} beside {entry.digest}"
            raise Violation(msg)
    return found


def judge(state: State, slot: Slot, position: Position, number: int) -> None:
    """What an instance has just answered its request of that number. Raises Violation."""
    outcome, observed = position.outcomes[number], position.requests[number]
    if isinstance(outcome, Refused):
        wrong = _refused(state, position, observed)
    else:
        wrong = _served(state, slot, outcome, observed)
        if not wrong and position.failures > sum(isinstance(before, Refused) for before in position.outcomes):
            wrong = "something failed, and is not answered by a refusal"
    if wrong:
        msg = f"{wrong}: observed digest {observed}, answered {outcome}"
        raise Violation(msg)


def _refused(state: State, position: Position, observed: int) -> str:
    how, digest = position.history[-1]
    stuck = state.lost and how == "unexplained" and digest not in {observed, state.claim}
    if state.last is not None and not stuck:
        return "the last one is refused"
    if not (position.failures or position.late or state.lost or state.expired):
        return "refused, and nothing had failed"
    return ""


def _served(state: State, slot: Slot, outcome: Served, observed: int) -> str:
    place = outcome.log_index
    broken = {
        "the log has no such entry": place >= len(state.log) or state.log[place].digest != outcome.digest,
        "not the recorded digest is served": outcome.same and outcome.digest != observed,
        "the recorded digest is refused": not outcome.same and outcome.digest == observed,
        "the store has never recorded that entry": place not in state.recorded,
        "the store has recorded another entry": not state.lost and place != state.sighting,
        "another digest was claimed": not (state.lost or state.expired) and outcome.digest != state.claim,
        "first seen, and another request made the record": outcome.first_seen and place != slot.made,
    }
    return next((wrong for wrong, so in broken.items() if so), "")
