"""The database is away in the middle of requests, comes back, or comes back empty.

Nothing is served that is not known for sure, nothing is logged twice, nothing is forgotten.
"""

from __future__ import annotations

import http.client
import time
from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from tests.cloud.deployment import Deployment
from tests.e2e.processes import wait_until
from tests.e2e.test_race import REPOSITORY, Got, ask_for_all, assert_logged, together
from tests.fakes.registry import FakeRegistry, image
from tests.firestore import FirestoreEmulator, need_emulator
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from tests.cloud.deployment import Revision

DEADLINE_S = 8  # more than one call to the database takes to be given up
SHORT_S = 4
UPSTREAM_S = 3  # that the upstream takes, of these
SLACK_S = 5  # two busy cores
GIVE_UP_S = 120
INSTANCES = 2
METHODS = ("GET", "HEAD")
FREEZES = 3
TAGS = 40
CONTENTS = (image("one"), image("two"))


class World:
    """A deployment with an emulator of its own, and an upstream."""

    def __init__(self, emulator: FirestoreEmulator, deployment: Deployment, registry: FakeRegistry) -> None:
        self.emulator, self.deployment, self.registry = emulator, deployment, registry
        self.dev = deployment.dev
        self.digests = [registry.push(REPOSITORY, None, content, OCI_MANIFEST) for content in CONTENTS]

    def flip(self, tags: list[str]) -> None:
        """From now on each of these points somewhere else at every request."""
        for number, tag in enumerate(tags):
            self.registry.alternate(REPOSITORY, tag, *(self.digests if number % 2 else reversed(self.digests)))

    def point(self, tags: list[str], which: int) -> None:
        for tag in tags:
            self.registry.alternate(REPOSITORY, tag, self.digests[which])


@pytest.fixture
def world(workshop: Path, programs: Path, sigstore: DevSigstore, tmp_path: Path) -> Iterator[World]:
    need_emulator()
    folder = workshop / tmp_path.name
    folder.mkdir()
    with FirestoreEmulator(folder) as emulator, FakeRegistry() as registry:
        yield World(
            emulator,
            Deployment(
                folder / "deployment",
                programs,
                emulator.url,
                sigstore,
                {"docker.io": registry.base_url},
                TLOGISTRY_DEADLINE=str(DEADLINE_S),
            ),
            registry,
        )


def asked(revision: Revision, method: str, tag: str, seconds: float) -> Got:
    """One answer, which came in time."""
    started = time.monotonic()
    (got,) = ask_for_all(revision.port, method, [tag])
    assert time.monotonic() - started < seconds + SLACK_S
    return got


class Crowd:
    """Clients that ask for all tags and never give up, and somebody who freezes the database again and again."""

    def __init__(self, world: World, revisions: list[Revision], tags: list[str]) -> None:
        self.got: list[Got] = []
        self._world = world
        self._tags = tags
        self.clients = [self._client(revision, method) for revision in revisions for method in METHODS]

    def _client(self, revision: Revision, method: str) -> Callable[[], None]:
        def ask() -> None:
            for tag in self._tags:
                until = time.monotonic() + GIVE_UP_S
                while (one := asked(revision, method, tag, DEADLINE_S)).status == http.client.SERVICE_UNAVAILABLE:
                    self.got.append(one)
                    assert time.monotonic() < until
                self.got.append(one)

        return ask

    def count(self, *statuses: int) -> int:
        return sum(one.status in statuses for one in list(self.got))

    def _wait(self, at_least: int, *statuses: int) -> None:
        assert wait_until(lambda: self.count(*statuses) >= at_least, GIVE_UP_S)

    def freeze_and_thaw(self) -> None:
        """Each time when some more tags are done, and until everybody was refused."""
        for number in range(1, FREEZES + 1):
            self._wait(number * len(self._tags) // (FREEZES + 2) * len(self.clients), 200, 403)
            self._world.emulator.freeze()
            try:
                before = self.count(503)
                self._wait(before + 1, 503)
                appended = self._world.dev.calls["append"]
                self._wait(before + len(self.clients), 503)
                assert self._world.dev.calls["append"] == appended, "without the database nothing is logged"
            finally:
                self._world.emulator.thaw()


@pytest.mark.long
def test_frozen_and_thawed_in_the_middle(world: World) -> None:
    tags = [f"frozen{number}" for number in range(TAGS)]
    world.flip(tags)
    with ExitStack() as stack:
        revisions = [stack.enter_context(world.deployment.revision()) for _ in range(INSTANCES)]
        crowd = Crowd(world, revisions, tags)
        together([*crowd.clients, crowd.freeze_and_thaw])
        fresh = stack.enter_context(world.deployment.revision())
        later = [asked(fresh, "GET", tag, DEADLINE_S) for tag in tags]
    assert {one.status for one in later} <= {http.client.OK, http.client.FORBIDDEN}
    assert not any(one.first for one in later), "nothing is forgotten"
    assert crowd.count(503) >= FREEZES * len(crowd.clients)
    by_tag = defaultdict(list)
    for one in [*crowd.got, *later]:
        if one.status != http.client.SERVICE_UNAVAILABLE:
            by_tag[one.tag].append(one)
    for tag in tags:
        (digest,) = {one.digest for one in by_tag[tag] if one.digest is not None}
        (entry,) = {one.entry for one in by_tag[tag]}
        assert sum(one.first for one in by_tag[tag]) <= 1
        assert digest is not None
        assert entry is not None
        assert_logged(world.dev, Tag.parse(f"{REPOSITORY}:{tag}"), entry, digest)


@pytest.mark.slow
def test_frozen_after_the_upstream_has_answered_it_is_late_by_one_call_to_the_database_at_most(world: World) -> None:
    """The store's contract knows no deadline, so that call has its own limit, which is never longer than the deadline."""
    world.point(["early", "late"], 0)
    with world.deployment.revision(TLOGISTRY_DEADLINE=str(SHORT_S)) as revision:
        assert wait_until(lambda: asked(revision, "GET", "early", SHORT_S).status == http.client.OK, GIVE_UP_S)  # warm
        world.registry.delay_ms = UPSTREAM_S * 1000
        world.registry.forget_requests()

        def ask() -> None:
            assert asked(revision, "GET", "late", 2 * SHORT_S).status == http.client.SERVICE_UNAVAILABLE

        def freeze() -> None:
            assert wait_until(lambda: world.registry.count() > 0, GIVE_UP_S)
            world.emulator.freeze()

        together([ask, freeze])
        world.emulator.thaw()
        (line,) = revision.about(f"{REPOSITORY}:late")
        assert (line["verdict"], line["upstreamStatus"]) == ("could not tell", 200)


@pytest.mark.slow
def test_while_it_is_away_what_an_instance_remembers_is_served_and_nothing_else(world: World) -> None:
    world.point(tags := ["kept", "moved", "other"], 0)
    with world.deployment.revision() as knows, world.deployment.revision() as knows_nothing:
        for tag in ("kept", "moved"):
            assert asked(knows, "GET", tag, DEADLINE_S).first
        world.point(["moved"], 1)

        def is_answered(revision: Revision, tag: str, status: int) -> Callable[[], None]:
            def ask() -> None:
                assert asked(revision, "GET", tag, DEADLINE_S).status == status

            return ask

        def says_so() -> None:
            unsure = knows_nothing.get(f"/sightings/{REPOSITORY}:kept")
            assert unsure.status == http.client.SERVICE_UNAVAILABLE
            assert int(unsure.headers["Retry-After"]) > 0
            assert unsure.error["code"] == "UNAVAILABLE"

        world.emulator.freeze()
        try:
            together(
                [
                    is_answered(knows, "kept", http.client.OK),
                    is_answered(knows, "moved", http.client.FORBIDDEN),
                    is_answered(knows, "other", http.client.SERVICE_UNAVAILABLE),
                    *(is_answered(knows_nothing, tag, http.client.SERVICE_UNAVAILABLE) for tag in tags),
                    says_so,
                ]
            )
        finally:
            world.emulator.thaw()
        statuses = [asked(knows_nothing, "GET", tag, DEADLINE_S).status for tag in tags]
        assert statuses == [http.client.OK, http.client.FORBIDDEN, http.client.OK]


@pytest.mark.long
def test_killed_and_restarted_empty_the_log_gives_the_records_back(world: World) -> None:
    tags = [f"lost{number}" for number in range(TAGS)]
    world.flip(tags)
    with ExitStack() as stack:
        knows, *others = (stack.enter_context(world.deployment.revision()) for _ in range(1 + INSTANCES))
        first = {tag: asked(knows, "GET", tag, DEADLINE_S) for tag in tags}
        assert all(one.first for one in first.values())
        appended = world.dev.calls["append"]

        world.emulator.kill()
        assert asked(others[0], "GET", tags[0], DEADLINE_S).status == http.client.SERVICE_UNAVAILABLE
        world.emulator.start()
        assert world.emulator.documents(world.deployment.database, "sightings") == []

        got: list[Got] = []

        def client(revision: Revision, method: str) -> Callable[[], None]:
            return lambda: got.extend(ask_for_all(revision.port, method, tags))

        together([client(revision, method) for revision in (*others, knows) for method in METHODS])
        assert {one.status for one in got} == {http.client.OK, http.client.FORBIDDEN}
        assert not any(one.first for one in got)
        for one in got:
            assert one.entry == first[one.tag].entry
            assert one.digest in {first[one.tag].digest, None}  # a refused HEAD has none
        assert world.dev.calls["append"] == appended, "what is found is not logged again"
        for tag in tags:
            assert len(digests_logged(world.dev.url, Tag.parse(f"{REPOSITORY}:{tag}"))) == 1
        assert len(world.emulator.documents(world.deployment.database, "sightings")) == len(tags)
