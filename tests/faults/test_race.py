"""A race for new tags in which the log fails, tags move and a process dies: one digest for each tag, for everybody.

0 wrong serves: every 200 is the recorded digest, every 403 names it. 0 tags with two digests in the log.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from lib.oci.reference import Tag
from tests.faults.race import REPOSITORY, Plan, Race

if TYPE_CHECKING:
    from pathlib import Path


def assert_one_digest_for_each_tag(race: Race, report: list[str]) -> None:
    plan = race.plan
    statuses = Counter(got.status for got in race.answers)
    by_tag = defaultdict(list)
    for got in race.answers:
        by_tag[got.tag].append(got)
    wrong = two = 0
    for tag in race.tags:
        in_log = race.log[str(Tag.parse(f"{REPOSITORY}:{tag}"))]
        two += len(in_log) != 1
        wrong += sum(got.recorded not in {*in_log, None} for got in by_tag[tag])
    tries = ", ".join(f"{number} x {what}" for what, number in sorted(race.tries.items()))
    report += [
        f"{plan.requests} requests, {plan.tags} new tags, {plan.processes} processes, seed {plan.seed}: {race.seconds:.0f} s",
        f"  answers: {statuses[200]} x 200, {statuses[403]} x 403; all tries: {tries}",
        f"  calls of the log that failed: {dict(sorted(race.faults.items()))}",
        f"  wrong serves: {wrong}; tags with two digests, or none, in the log: {two}",
    ]
    assert wrong == 0
    assert two == 0
    assert len(race.answers) == plan.requests
    for tag in race.tags:
        assert len({got.entry for got in by_tag[tag]}) == 1, "one entry is named to everybody"
        assert sum(got.first for got in by_tag[tag]) <= 1
        assert all(got.recorded is not None for got in by_tag[tag] if got.status == 200)
    assert statuses.keys() == {200, 403}, "both digests were offered"
    assert {"append", "copy", "index"} <= race.faults.keys()
    assert race.tries["503"] > 0, "the faults were felt"


@pytest.mark.slow
def test_five_hundred_at_three_processes(tmp_path: Path, report: list[str]) -> None:
    race = Race(tmp_path, Plan(requests=500, tags=50, processes=3, seed=1))
    race.run()
    assert_one_digest_for_each_tag(race, report)


@pytest.mark.long
def test_ten_thousand_at_eight_processes(tmp_path: Path, report: list[str]) -> None:
    race = Race(tmp_path, Plan(requests=10_000, tags=1_000, processes=8, seed=2))
    race.run()
    assert race.tries["died"] > 0, "a process was killed"
    assert_one_digest_for_each_tag(race, report)
