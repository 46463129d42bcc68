"""Eight instances, each with a cache of its own, over one database: 300 new tags, asked everywhere while the upstream flips."""

from __future__ import annotations

import http.client
import threading
from collections import Counter, defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from tests.cloud.deployment import Deployment
from tests.e2e.test_race import Got, ask_for_all, assert_logged, together
from tests.fakes.registry import FakeRegistry, image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from tests.firestore import FirestoreEmulator

INSTANCES = 8
TAGS = 300
LANES = 3  # which share the tags; in each of them all meet at every tag
METHODS = ("GET", "HEAD")  # a client of each, at each instance, in each lane
AGAIN = 20  # times that a 503 is asked again before the test gives up
MEET_S = 300  # seconds that the slowest may take for one tag
UNAVAILABLE_AT_MOST = 0.02  # of all answers
REPOSITORY = "race/app"  # as in test_race.py
CONTENTS = (image("one"), image("two"))


def client(port: int, method: str, tags: list[str], meet: threading.Barrier, got: list[Got]) -> Callable[[], None]:
    """Asks one instance for every tag, each at the same moment as all others of its lane; a 503 at once again."""

    def ask() -> None:
        try:
            for tag in tags:
                meet.wait(MEET_S)
                for _ in range(AGAIN):
                    (one,) = ask_for_all(port, method, [tag])
                    got.append(one)
                    if one.status != http.client.SERVICE_UNAVAILABLE:
                        break
        except BaseException:
            meet.abort()  # or the others would wait for us
            raise

    return ask


@pytest.mark.long
def test_eight_instances_agree_on_three_hundred_new_tags(
    workshop: Path,
    programs: Path,
    emulator: FirestoreEmulator,
    sigstore: DevSigstore,
) -> None:
    tags = [f"v{number}" for number in range(TAGS)]
    got: list[Got] = []
    with FakeRegistry() as registry, ExitStack() as stack:
        digests = [registry.push(REPOSITORY, None, content, OCI_MANIFEST) for content in CONTENTS]
        for number, tag in enumerate(tags):
            registry.alternate(REPOSITORY, tag, *(digests if number % 2 else reversed(digests)))
        upstreams = {"docker.io": registry.base_url}
        deployment = Deployment(workshop / "instances", programs, emulator.url, sigstore, upstreams)
        instances = [deployment.revision() for _ in range(INSTANCES)]
        for instance in instances:
            stack.callback(instance.kill)
            instance.begin()
        for instance in instances:
            instance.ready()
        work = []
        for lane in range(LANES):
            meet = threading.Barrier(INSTANCES * len(METHODS))
            work += [
                client(instance.port, method, tags[lane::LANES], meet, got)
                for instance in instances
                for method in METHODS
            ]
        together(work)

        by_tag = defaultdict(list)
        for one in got:
            by_tag[one.tag].append(one)
        assert by_tag.keys() == set(tags)
        for tag, answers in by_tag.items():
            told = [one for one in answers if one.status != http.client.SERVICE_UNAVAILABLE]
            assert len(told) == INSTANCES * len(METHODS), "everybody was answered in the end"
            assert {one.status for one in told} == {http.client.OK, http.client.FORBIDDEN}, "both digests were offered"
            (digest,) = {one.digest for one in told if one.digest is not None}
            (entry,) = {one.entry for one in told}
            assert sum(one.first for one in told) <= 1
            assert digest is not None
            assert entry is not None, "every refusal names an entry"
            assert_logged(sigstore, Tag.parse(f"{REPOSITORY}:{tag}"), entry, digest)
        lines = [line for instance in instances for line in instance.records() if "verdict" in line]
    verdicts = Counter(line["verdict"] for line in lines)
    statuses = Counter(one.status for one in got)
    assert verdicts.total() == statuses.total()
    assert verdicts.keys() <= {"first seen", "same", "moved", "could not tell"}
    assert verdicts["moved"] == statuses[http.client.FORBIDDEN]
    assert statuses[http.client.SERVICE_UNAVAILABLE] <= UNAVAILABLE_AT_MOST * statuses.total()
