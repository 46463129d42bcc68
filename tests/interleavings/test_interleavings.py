"""Every interleaving of the real recorder; what that covers is said in this folder's docstring (`__init__.py`)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.interleavings import broken
from tests.interleavings.explore import Counts, Exploration, walk
from tests.interleavings.live import Stage
from tests.interleavings.world import Rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Instances = tuple[tuple[int, ...], ...]
ONE_EACH: Instances = ((0,), (1,))
THREE: Instances = ((0,), (1,), (2,))
THREE_AGAIN: Instances = ((0, 1), (1, 0), (0,))  # the first two are asked twice, and the tag has moved in between
PLAIN = Rules(lossy=False, crashes=False, faults=False, loss=False)  # nothing but interleavings
LOST = PLAIN._replace(loss=True)
FAULTS = PLAIN._replace(faults=True, last=(1,))
SEED = 20_220_707


def name(value: object) -> str | None:
    """What each instance's requests observe, or who is broken."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return " ".join("".join("ABC"[digest] for digest in requests) for requests in value)
    if isinstance(value, Rules):
        return "expiring_claim" if value.expiring else value.build.__name__
    return ""


def explored(rules: Rules, instances: Instances, report: Callable[[str], None]) -> Counts:
    """All schedules; none breaks a promise."""
    exploration = Exploration(rules, *instances)
    counts = exploration.run()
    assert not exploration.violations, "\n".join(exploration.violations.values())
    report(f"{counts}; {exploration.states:,} states and {exploration.moves:,} moves visited")
    return counts


@pytest.mark.parametrize("instances", [ONE_EACH, ((0,), (0,))], ids=name)
def test_two_instances_with_one_request_each(instances: Instances, report: Callable[[str], None]) -> None:
    """Every call, every way in which it goes, every crash, the store lost at every moment, a search that misses anything."""
    counts = explored(Rules(), instances, report)
    assert counts.one > 10**9
    assert counts.gap
    assert counts.missed, "what the recorder's docstring leaves does happen: else it promises too little"


@pytest.mark.parametrize(
    ("rules", "gap", "missed"),
    [
        (Rules(loss=False, last=(1,)), False, False),
        (Rules(lossy=False, faults=False), True, False),
        (Rules(faults=False), True, True),
    ],
    ids=["store is kept", "index is complete", "neither"],
)
def test_two_digests_need_a_lost_store_and_a_gap_or_an_index_that_misses_an_entry(
    rules: Rules, report: Callable[[str], None], *, gap: bool, missed: bool
) -> None:
    counts = explored(rules, ONE_EACH, report)
    assert (counts.gap > 0, counts.missed > 0, counts.both > 0) == (gap, missed, gap and missed)


@pytest.mark.long
def test_three_instances_that_may_crash(report: Callable[[str], None]) -> None:
    """Every schedule in which no call fails."""
    explored(Rules(faults=False), THREE, report)


@pytest.mark.parametrize("walks", [1_500, pytest.param(20_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("instances", [THREE, THREE_AGAIN], ids=name)
def test_three_instances_sampled(instances: Instances, walks: int, report: Callable[[str], None]) -> None:
    """With everything that can happen to two."""
    chance = random.Random(SEED)  # noqa: S311 - to be the same each time
    seen, counts = set(), Counts()
    for _ in range(walks):
        trail, end = walk(Rules(), instances, chance)
        seen.add(tuple(trail))
        counts = counts.plus(Counts.of(end))
    report(f"{len(seen):,} different ones: {counts}")
    assert len(seen) > walks / 2
    assert counts.one


@pytest.mark.parametrize(
    ("rules", "instances"),
    [
        (Rules(last=(1,)), ((0,),)),
        (PLAIN._replace(build=broken.claim_is_evidence, crashes=True, last=()), ONE_EACH),
        pytest.param(PLAIN._replace(last=()), ONE_EACH, marks=pytest.mark.long),
    ],
    ids=name,
)
def test_pruning_counts_what_walking_through_each_schedule_counts(rules: Rules, instances: Instances) -> None:
    pruned, walked = (Exploration(rules, *instances, prune=prune) for prune in (True, False))
    assert pruned.run() == walked.run()
    assert pruned.violations.keys() == walked.violations.keys()
    assert walked.moves > 9 * pruned.moves


@pytest.mark.parametrize("instances", [ONE_EACH, THREE_AGAIN], ids=name)
def test_instances_that_run_on_threads_and_a_real_store_do_the_same(instances: Instances, tmp_path: Path) -> None:
    """A sample of schedules, call by call: what each asks, what the store says, what each answers in the end."""
    chance = random.Random(SEED)  # noqa: S311 - to be the same each time
    for number in range(25):
        trail, end = walk(Rules(), instances, chance)
        assert Stage(Rules(), instances, tmp_path / f"{number}.sqlite").play(trail) == end


@pytest.mark.parametrize(
    ("rules", "kind"),
    [  # in a smaller world than the real one's, which has all its schedules, too
        (PLAIN._replace(expiring=True), "the log shows two digests"),
        (PLAIN._replace(build=broken.own_digest), "the log shows two digests"),
        (FAULTS._replace(build=broken.unexplained_entry_skipped, loss=True), "the log shows two digests"),
        (PLAIN._replace(build=broken.compare_before_put), "the store has never recorded that entry"),
        (LOST._replace(build=broken.search_before_claim), "the log shows two digests"),
        # and more
        (LOST._replace(build=broken.no_last_look), "the log shows two digests"),
        (
            FAULTS._replace(build=broken.failed_search_is_nothing_found),
            "something failed, and is not answered by a refusal",
        ),
        (PLAIN._replace(build=broken.claim_blocks, crashes=True), "the last one is refused"),
        (PLAIN._replace(build=broken.claim_blocks), "refused, and nothing had failed"),
        (PLAIN._replace(build=broken.claim_is_evidence), "the log has no such entry"),
        (PLAIN._replace(build=broken.everybody_is_first), "first seen, and another request made the record"),
        (FAULTS._replace(build=broken.unverified), "something failed, and is not answered by a refusal"),
        (PLAIN._replace(build=broken.moved_is_served), "not the recorded digest is served"),
        (PLAIN._replace(build=broken.same_is_refused), "the recorded digest is refused"),
    ],
    ids=name,
)
def test_a_broken_recorder_is_caught(rules: Rules, kind: str) -> None:
    exploration = Exploration(rules, *ONE_EACH)
    exploration.run()
    assert kind in exploration.violations, exploration.violations
