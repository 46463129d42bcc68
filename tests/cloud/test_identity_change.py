"""The signing identity is changed in two deployments, old and new revision side by side each time: no tag is refused meanwhile.

`before` accepts OLD and signs as OLD. The first deployment, `accepts`, accepts NEW, too; the second, `signs`, signs as NEW.
"""

from __future__ import annotations

import base64
import http.client
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from lib.devsigstore.identity import EMAIL as OLD
from lib.devsigstore.server import DevSigstore
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from tests.cloud.deployment import Deployment, identities
from tests.e2e.test_race import together
from tests.fakes.registry import FakeRegistry, image
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.cloud.deployment import Revision
    from tests.firestore import FirestoreEmulator

NEW = "tlogistry-next@not-for-production.invalid"
FIRST, MOVED = image("first"), image("moved")
TAGS = 12  # new ones in each step
HEADERS = ("Docker-Content-Digest", "Tlog-Uuid", "Tlog-Logindex", "Tlog-Integratedtime")


def runs_as(dev: DevSigstore, email: str) -> dict[str, str]:
    """Where a revision of this service account finds its metadata server."""
    return {name: value for name, value in dev.environment(email).items() if name.startswith("GCE_")}


class World:
    """The project, its upstream, and what every tag was answered when it was new."""

    def __init__(self, deployment: Deployment, registry: FakeRegistry) -> None:
        self.deployment, self.registry = deployment, registry
        self.dev = deployment.dev
        self.known: dict[str, list[str]] = {}

    def push(self, step: str, count: int = TAGS) -> list[str]:
        """New tags."""
        tags = [f"identity/{step}:v{number}" for number in range(count)]
        for tag in tags:
            self.point(tag, FIRST)
        return tags

    def point(self, tag: str, content: bytes) -> None:
        """The tag points there from now on."""
        repository, _, name = tag.partition(":")
        self.registry.push(repository, name, content, OCI_MANIFEST)

    def revision(self, signs_as: str, *accepts: str) -> Revision:
        return self.deployment.revision(TLOGISTRY_IDENTITIES=identities(*accepts), **runs_as(self.dev, signs_as))

    def before(self) -> Revision:
        return self.revision(OLD, OLD)

    def accepts(self) -> Revision:
        return self.revision(OLD, OLD, NEW)

    def signs(self) -> Revision:
        return self.revision(NEW, NEW, OLD)

    def served(self, revisions: Iterable[Revision], tags: Iterable[str]) -> None:
        """All ask for all of these at once; each is served, and every answer about a tag is the same as ever."""
        tags = list(tags)

        def client(revision: Revision, method: str) -> Callable[[], None]:
            def ask() -> None:
                for tag in tags:
                    answer = revision.by_tag(tag, method)
                    assert answer.status == http.client.OK, answer.body
                    said = [answer.headers[name] for name in HEADERS]
                    assert self.known.setdefault(tag, said) == said

            return ask

        together([client(revision, method) for revision in revisions for method in ("GET", "HEAD")])

    def signer(self, revision: Revision, reference: str) -> str:
        """Who signed what is recorded for a tag."""
        record = revision.get(f"/sightings/{reference}").json()
        der = base64.b64decode(record["bundle"]["verificationMaterial"]["certificate"]["rawBytes"])
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        (email,) = names.value.get_values_for_type(x509.RFC822Name)
        return email

    def logged_once(self, tags: Iterable[str]) -> None:
        for tag in tags:
            assert len(digests_logged(self.dev.url, Tag.parse(tag))) == 1, tag


@pytest.fixture
def world(workshop: Path, programs: Path, emulator: FirestoreEmulator, tmp_path: Path) -> Iterator[World]:
    folder = workshop / tmp_path.name
    with FakeRegistry() as registry, DevSigstore(tmp_path) as dev:
        yield World(Deployment(folder, programs, emulator.url, dev, {"docker.io": registry.base_url}), registry)


@pytest.mark.long
def test_in_two_deployments_no_tag_is_refused_in_between(world: World) -> None:
    with ExitStack() as stack:
        before = stack.enter_context(world.before())
        world.served([before], oldest := world.push("before"))

        accepts = stack.enter_context(world.accepts())  # the first deployment: both are there for a while
        world.served([before, accepts], [*oldest, *world.push("accepting")])
        before.stop()
        world.served([accepts], world.known)
        assert {world.signer(accepts, tag) for tag in world.known} == {OLD}

        signs = stack.enter_context(world.signs())  # the second
        world.served([signs, accepts], [*world.known, *world.push("either")])
        world.served([signs], new := world.push("new"))
        assert {world.signer(signs, tag) for tag in new} == {NEW}
        assert {world.signer(accepts, tag) for tag in new} == {NEW}
        world.served([accepts], new)
        world.served([accepts], late := world.push("late"))
        assert {world.signer(signs, tag) for tag in late} == {OLD}
        world.served([signs], late)
        accepts.stop()

        world.served([signs], world.known)
        signs.restart()
        world.served([signs], world.known)
        assert {world.signer(signs, tag) for tag in oldest} == {OLD}, "old records stay as they are"
        for tag in (oldest[0], new[0], late[0]):
            world.point(tag, MOVED)
            refused = signs.by_tag(tag)
            assert refused.status == http.client.FORBIDDEN
            assert refused.headers["Tlog-Uuid"] == world.known[tag][1]
        world.logged_once(world.known)
        for revision in (before, accepts):
            assert {line["verdict"] for line in revision.records() if "verdict" in line} <= {"first seen", "same"}


def test_the_old_revision_refuses_a_moved_tag_with_the_new_identitys_record(world: World) -> None:
    (tag,) = world.push("moved", 1)
    with world.accepts() as accepts, world.signs() as signs:
        first = signs.by_tag(tag)
        world.point(tag, MOVED)
        refused = accepts.by_tag(tag)
        assert refused.status == http.client.FORBIDDEN
        assert refused.headers["Tlog-Uuid"] == first.headers["Tlog-Uuid"]


def test_in_one_deployment_the_old_revision_cannot_tell_and_records_nothing_afresh(world: World) -> None:
    """Why there are two."""
    (tag,) = world.push("hasty", 1)
    with world.before() as before, world.signs() as signs:
        first = signs.by_tag(tag)
        assert first.status == http.client.OK
        appended = world.dev.calls["append"]
        for content in (FIRST, MOVED):
            world.point(tag, content)
            unsure = before.by_tag(tag)
            assert unsure.status == http.client.SERVICE_UNAVAILABLE
            assert "not an accepted identity" in unsure.error["message"]
        assert world.dev.calls["append"] == appended
        world.point(tag, FIRST)
        assert signs.by_tag(tag).headers["Tlog-Uuid"] == first.headers["Tlog-Uuid"]
    world.logged_once([tag])


def test_a_token_of_another_identity_is_found_at_the_first_request(world: World) -> None:
    recorded, moved, fresh = world.push("mismatch", 3)
    with world.before() as before:
        world.served([before], [recorded, moved])
    world.point(moved, MOVED)
    certified, appended = world.dev.calls["certificate"], world.dev.calls["append"]
    with world.revision(OLD, NEW, OLD) as mistaken:
        unsure = mistaken.by_tag(fresh)
        assert unsure.status == http.client.SERVICE_UNAVAILABLE
        assert int(unsure.headers["Retry-After"]) > 0
        (line,) = mistaken.about(fresh)
        assert (line["severity"], line["verdict"], line["status"]) == ("WARNING", "could not tell", 503)
        assert line["reason"].startswith(f"this service runs as {OLD} of ")
        assert f"but TLOGISTRY_IDENTITIES says that {NEW} of " in line["reason"]
        assert "upstreamStatus" in line
        world.served([mistaken], [recorded])
        refused = mistaken.by_tag(moved)
        assert (refused.status, refused.headers["Tlog-Uuid"]) == (http.client.FORBIDDEN, world.known[moved][1])
        assert mistaken.get(f"/sightings/{fresh}").status == http.client.NOT_FOUND
    assert (world.dev.calls["certificate"], world.dev.calls["append"]) == (certified, appended)
    assert digests_logged(world.dev.url, Tag.parse(fresh)) == set()

    with world.signs() as right:  # the configuration is put right: nothing is in the way
        world.served([right], [fresh, recorded])
        assert world.signer(right, fresh) == NEW
