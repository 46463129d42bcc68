"""Accounts at a registry, from the secret to the pull: they raise the rate limit, open nothing, and are in no line."""

from __future__ import annotations

import base64
import http.client
import json
import time
from typing import TYPE_CHECKING

import pytest

from lib.oci.digest import Digest
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from lib.upstream.keyring import AGAIN_S
from tests.cloud.deployment import Deployment
from tests.e2e.processes import wait_until
from tests.fakes.registry import FakeRegistry, image
from tests.fakes.secret_manager import FakeSecretManager
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from tests.cloud.deployment import Revision
    from tests.firestore import FirestoreEmulator

SECRET = "projects/demo-tlogistry/secrets/registry-accounts"
USER, PASSWORD, NEXT_PASSWORD = "our-robot", "hunter2-of-docker-hub", "correct-horse-of-docker-hub"
PATIENCE_S = 60


def content(password: str) -> bytes:
    return json.dumps({"docker.io": {"username": USER, "password": password}}).encode()


class World:
    """A registry whose anonymous pulls are used up, a secret, and the function."""

    def __init__(self, registry: FakeRegistry, manager: FakeSecretManager, deployment: Deployment) -> None:
        self.registry, self.manager, self.deployment = registry, manager, deployment

    def push(self, repository: str, text: str = "first") -> str:
        return self.registry.push(repository, "v1", image(text), OCI_MANIFEST)


@pytest.fixture
def world(
    workshop: Path, programs: Path, emulator: FirestoreEmulator, sigstore: DevSigstore, tmp_path: Path
) -> Iterator[World]:
    with (
        FakeRegistry(token_field="token", accounts={USER: PASSWORD}) as registry,
        FakeSecretManager() as manager,
    ):
        registry.pulls = 0
        manager.add(SECRET, content(PASSWORD))
        deployment = Deployment(
            workshop / tmp_path.name,
            programs,
            emulator.url,
            sigstore,
            {"docker.io": registry.base_url},
            TLOGISTRY_CREDENTIALS_SECRET=SECRET,
            TLOGISTRY_SECRET_MANAGER_ENDPOINT=manager.url,
        )
        yield World(registry, manager, deployment)


def holds_nothing(revision: Revision) -> None:
    """No line holds the account, in any form."""
    basics = (base64.b64encode(f"{USER}:{word}".encode()).decode() for word in (PASSWORD, NEXT_PASSWORD))
    for secret in (USER, PASSWORD, NEXT_PASSWORD, *basics):
        assert secret not in revision.text()


def test_over_the_rate_limit_a_public_image_is_served_and_without_the_secret_it_is_not(world: World) -> None:
    digest = world.push("my-user/public")
    with world.deployment.revision(TLOGISTRY_CREDENTIALS_SECRET="") as without:
        limited = without.by_tag("my-user/public:v1")
        assert limited.status == http.client.TOO_MANY_REQUESTS
        assert limited.headers["Retry-After"] == "60"
        (line,) = without.about("my-user/public:v1")
        assert (line["verdict"], line["status"], line["upstreamStatus"]) == ("rate limited", 429, 429)
    with world.deployment.revision() as function:
        (started,) = [line for line in function.records() if line["message"] == "started"]
        assert started["credentials"] == f"{SECRET}/versions/latest"
        assert world.manager.requests == [], "nothing is read before it is needed"
        first = function.by_tag("my-user/public:v1")
        assert (first.status, first.digest, first.headers["Tlog-First-Seen"]) == (200, digest, "true")
        assert function.by_tag("my-user/public:v1", "HEAD").digest == digest
        assert function.get(f"/v2/my-user/public/manifests/{digest}").body == image("first")
        assert world.registry.pulled_by_account == 1, "the manifest is held since then"
        moved = world.push("my-user/public", "moved")
        refused = function.by_tag("my-user/public:v1")
        assert refused.status == http.client.FORBIDDEN
        assert refused.error["message"] == f'tag "my-user/public:v1" mismatch; got "{moved}", want "{digest}"'
        for line in function.about("my-user/public:v1"):
            assert line["upstreamStatus"] == 200, line
        (read,) = [line for line in function.records() if line["message"] == "upstream credentials read"]
        assert read["registries"] == "docker.io"
        assert world.manager.requests == [f"/v1/{SECRET}/versions/latest:access"]
        holds_nothing(function)


def test_a_private_image_that_the_account_may_read_is_refused(world: World) -> None:
    world.registry.private.add("my-user/private")
    digest = world.push("my-user/private")
    world.push("my-user/public")
    with world.deployment.revision() as function:
        assert function.by_tag("my-user/public:v1").status == http.client.OK, "the account is there, and used"
        for method in ("GET", "HEAD"):
            answer = function.by_tag("my-user/private:v1", method)
            assert answer.status == http.client.NOT_FOUND
            assert answer.digest is None
        answer = function.by_tag("my-user/private:v1")
        assert answer.error["code"] == "NAME_UNKNOWN"
        by_digest = function.get(f"/v2/my-user/private/manifests/{digest}")
        assert (by_digest.status, by_digest.error["code"]) == (http.client.NOT_FOUND, "NAME_UNKNOWN")
        config = Digest.of(b"{}")
        world.registry.push_blob("my-user/private", b"{}")
        assert function.get(f"/v2/my-user/private/blobs/{config}").status == http.client.NOT_FOUND
        lines = function.about("my-user/private:v1")
        assert lines[0]["upstreamStatus"] == 401
        for line in lines:  # the later ones may be answered from what the registry said a moment before
            assert (line["verdict"], line["status"]) == ("not public", 404)
        assert digests_logged(world.deployment.dev.url, Tag.parse("my-user/private:v1")) == set()
        holds_nothing(function)


def test_a_public_image_that_turns_private_is_refused_by_tag_at_once(world: World) -> None:
    digest = world.push("my-user/turning")
    with world.deployment.revision() as function:
        assert function.by_tag("my-user/turning:v1").digest == digest
        world.registry.private.add("my-user/turning")
        for method in ("GET", "HEAD"):
            assert function.by_tag("my-user/turning:v1", method).status == http.client.NOT_FOUND


@pytest.mark.long
def test_a_rotated_secret_is_picked_up_without_a_restart(world: World) -> None:
    world.push("my-user/rotated")
    world.push("my-user/again", "again")
    with world.deployment.revision() as function:
        assert function.by_tag("my-user/rotated:v1").status == http.client.OK
        read_at = time.monotonic()
        world.manager.add(SECRET, content(NEXT_PASSWORD))
        world.registry.accounts = {USER: NEXT_PASSWORD}
        world.registry.revoke()
        # The secret is read at most so often, whoever refuses what it held.
        assert wait_until(lambda: time.monotonic() > read_at + AGAIN_S, PATIENCE_S)
        assert function.by_tag("my-user/again:v1").status == http.client.OK
        assert world.registry.pulled_by_account == 2
        messages = [line["message"] for line in function.records()]
        assert messages.count("upstream credentials refused") == 1
        assert messages.count("upstream credentials read") == 2
        holds_nothing(function)


def test_a_secret_that_cannot_be_read_is_one_warning_and_everything_is_anonymous(world: World) -> None:
    world.registry.pulls = None
    world.manager.error = "PERMISSION_DENIED"
    with world.deployment.revision() as function:
        for number in range(3):
            world.push(f"my-user/anonymous{number}")
            assert function.by_tag(f"my-user/anonymous{number}:v1").status == http.client.OK
        (warning,) = [line for line in function.records() if line["severity"] == "WARNING"]
        assert warning["message"] == "upstream credentials not read; everything is asked anonymously"
        assert "roles/secretmanager.secretAccessor" in warning["reason"]
    assert world.registry.pulled_by_account == 0
