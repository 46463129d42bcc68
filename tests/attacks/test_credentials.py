"""Every way in which an upstream could get hold of our account at a registry, or make us serve what only the account may read.

`hub` is the registry that the account is for; whatever it is told to answer, a malicious one could. `evil` collects what it is
sent. In each attack the manifest was shown to an anonymous client before, so that the account is about to be used, and the
answer that the client gets is still the right one.

Realms: CVE-2026-33540, CVE-2026-48978, GHSA-28r5-37g7-p6mp, oras-dotnet#393.
Redirects: CVE-2020-15157, GHSA-vh4v-2xq2-g5cg, GGCR#2193.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from lib.errors import NotPublic, RateLimited
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.upstream.account import SHOWN_S
from lib.upstream.credentials import Realms
from lib.upstream.upstream import BlobRedirect
from tests.clock import Clock
from tests.fakes.registry import FakeRegistry, Redirect, Status, image
from tests.fakes.secret_manager import FakeSecretManager
from tests.framework import Function
from tests.sigstore import digests_logged
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, HeldSecret, asking, names, soon
from tests.upstream.test_transport import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from tests.upstream.support import Asking

REPOSITORY = ALPINE.repository
MANIFESTS = "/v2/library/alpine/manifests/"
SECRET = {
    "docker.io": {"username": "our-robot", "password": "hunter2"},
    "ghcr.io": {"username": "our-other-robot", "password": "correct-horse"},
}
SECRETS = ("our-robot", "hunter2", "our-other-robot", "correct-horse")
BASICS = tuple(base64.b64encode(f"{one['username']}:{one['password']}".encode()).decode() for one in SECRET.values())


class World:
    """The registry with the account, a collector of secrets, and us."""

    def __init__(self, hub: FakeRegistry, evil: FakeRegistry, asked: Asking, clock: Clock) -> None:
        self.hub, self.evil, self.asked, self.clock = hub, evil, asked, clock
        self.digest = Digest.parse(hub.push("library/alpine", "3.16.0", image("a"), TYPE))

    def show(self) -> None:
        """An anonymous client is shown the manifest; what comes next would be asked for by account."""
        self.asked.registries.head(ALPINE, soon())

    def pull(self, registry: str = "docker.io") -> None:
        """By digest, and the answer is right."""
        repository = Tag.parse(f"{registry}/library/alpine:1").repository
        assert self.asked.registries.manifest(repository, self.digest, soon()).content == image("a")

    def name_realm(self, realm: str) -> None:
        self.hub.challenge = f'Bearer realm="{realm}",service="fake-registry"'

    def assert_nothing_got_out(self) -> None:
        assert_knows_nothing(self.evil, self.hub)
        assert sent(self.hub, "Basic") == []


def sent(fake: FakeRegistry, scheme: str) -> list[str]:
    """What a fake was sent as Authorization of this scheme, by anybody."""
    values = [seen.headers.get("authorization", "") for seen in (*fake.requests, *fake.token_requests)]
    return [value.partition(" ")[2] for value in values if value.startswith(f"{scheme} ")]


def assert_knows_nothing(evil: FakeRegistry, hub: FakeRegistry) -> None:
    """Neither a password in any form, nor a token of the account's, nor even one of an anonymous client's at the hub."""
    seen = json.dumps([[one.path, one.query, dict(one.headers)] for one in (*evil.requests, *evil.token_requests)])
    for secret in (*SECRETS, *BASICS, *sent(hub, "Bearer")):
        assert secret not in seen


@pytest.fixture
def world() -> Iterator[World]:
    clock = Clock()
    with (
        FakeRegistry(token_field="token", accounts={"our-robot": "hunter2"}) as hub,
        FakeRegistry(token_field="token", accounts={}) as evil,
        asking({"docker.io": hub, "evil.example": evil}, clock=clock.now, secret=HeldSecret(SECRET)) as asked,
    ):
        yield World(hub, evil, asked, clock)


def test_without_an_attack_the_password_is_sent(world: World) -> None:
    """Or all the others would show nothing."""
    world.show()
    world.pull()
    assert sent(world.hub, "Basic") == [BASICS[0]]
    assert world.hub.pulled_by_account == 1
    assert {seen.path for seen in world.hub.token_requests} == {"/token"}
    assert all(not seen.headers.get("authorization", "").startswith("Basic") for seen in world.hub.requests)


# Realms


def test_a_realm_on_another_host_is_not_sent_the_password(world: World) -> None:
    world.show()
    world.name_realm("https://evil.example/token")
    world.pull()
    world.assert_nothing_got_out()
    (line,) = [line for line in world.asked.log if line["severity"] == "WARNING"]
    assert line["message"] == "upstream credentials withheld: the realm is not the pinned one"
    assert (line["registry"], line["realm"]) == ("docker.io", "evil.example")


def test_a_realm_on_another_port_of_the_host_is_not_sent_the_password(world: World) -> None:
    world.show()
    world.name_realm(world.evil.token_url)
    world.pull()
    world.assert_nothing_got_out()
    assert world.evil.token_requests == []


def test_a_realm_that_answers_anonymous_clients_well_is_not_sent_the_password(world: World) -> None:
    """It even gives tokens that the registry takes."""
    world.name_realm(world.evil.token_url)
    world.hub.fault("/v2/*", Status(200, {"Docker-Content-Digest": str(world.digest)}), method="HEAD")
    world.show()
    world.hub.heal()
    world.hub.fault(f"{MANIFESTS}*", Status(200, {"Content-Type": TYPE}, image("a")), method="GET")
    world.pull()
    world.assert_nothing_got_out()


def test_a_realm_of_another_path_is_not_sent_the_password_of_a_registry_of_the_table() -> None:
    realms = Realms({})
    assert realms.allow("docker.io", "https://auth.docker.io/token")
    for path in (
        "",
        "/",
        "/token/",
        "/tokens",
        "/token/../x",
        "/%74oken",
        "/token?x=1",
        "/token#x",
        "//token",
        "/TOKEN",
    ):
        assert not realms.allow("docker.io", f"https://auth.docker.io{path}")


def test_a_realm_over_plain_http_is_not_sent_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = certificate(tmp_path, "reg.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with (
        FakeRegistry(token_field="token", accounts={"our-robot": "hunter2"}, tls=tls) as hub,
        FakeRegistry(token_field="token", accounts={}) as evil,
    ):
        url = f"https://reg.example:{hub.port}"
        resolver = names({"reg.example": ["127.0.0.1"], "127.0.0.1": ["127.0.0.1"]})
        with asking({"docker.io": url, "evil.example": evil}, resolver=resolver, secret=HeldSecret(SECRET)) as asked:
            digest = Digest.parse(hub.push("library/alpine", "3.16.0", image("a"), TYPE))
            hub.challenge = f'Bearer realm="{url}/token"'
            asked.registries.head(ALPINE, soon())
            for realm in (
                f"http://reg.example:{hub.port}/token",
                "http://reg.example/token",
                "http://reg.example:443/token",
                evil.token_url,
            ):
                hub.challenge = f'Bearer realm="{realm}"'
                assert asked.registries.manifest(REPOSITORY, digest, soon()).content == image("a")
            assert sent(hub, "Basic") == []
            assert_knows_nothing(evil, hub)
            hub.challenge = f'Bearer realm="{url}/token"'
            asked.registries.manifest(REPOSITORY, digest, soon())
            assert sent(hub, "Basic") == [BASICS[0]]  # over TLS it is


def test_a_realm_with_userinfo_is_not_sent_the_password(world: World) -> None:
    world.show()
    hub, evil = (url.removeprefix("http://") for url in (world.hub.base_url, world.evil.base_url))
    for realm in (
        f"http://x@{hub}/token",
        f"http://x:y@{hub}/token",
        f"http://@{hub}/token",
        f"http://{hub}@{evil}/token",
        f"http://{evil}\\\\@{hub}/token",
        f"http://{evil}#@{hub}/token",
    ):
        world.name_realm(realm)
        world.pull()
    world.assert_nothing_got_out()


@pytest.mark.parametrize("host", ["LOCALHOST", "localhost.", "LocalHost", "127.0.0.1", "127.1", "[::1]"])
def test_a_realm_that_is_the_pinned_one_in_another_spelling_is_not_sent_the_password(host: str) -> None:
    with FakeRegistry(token_field="token", accounts={"our-robot": "hunter2"}) as hub:
        url = f"http://localhost:{hub.port}"
        with asking({"docker.io": url, "other.example": hub}, secret=HeldSecret(SECRET)) as asked:
            digest = Digest.parse(hub.push("library/alpine", "3.16.0", image("a"), TYPE))
            hub.challenge = f'Bearer realm="{url}/token"'
            asked.registries.head(ALPINE, soon())
            hub.challenge = f'Bearer realm="http://{host}:{hub.port}/token"'
            assert asked.registries.manifest(REPOSITORY, digest, soon()).content == image("a")
            assert sent(hub, "Basic") == []
            hub.challenge = f'Bearer realm="{url}/token"'
            asked.registries.manifest(REPOSITORY, digest, soon())
            assert sent(hub, "Basic") == [BASICS[0]]


def test_a_mirrors_password_is_not_sent_to_the_originals_realm() -> None:
    asked_for: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked_for.append(f"{host}:{port}")
        return ["127.0.0.1"]

    with FakeRegistry(token_field="token", accounts={"our-robot": "hunter2"}) as hub:
        with asking({"docker.io": hub.base_url}, resolver=resolve, secret=HeldSecret(SECRET)) as asked:
            digest = Digest.parse(hub.push("library/alpine", "3.16.0", image("a"), TYPE))
            asked.registries.head(ALPINE, soon())
            hub.challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
            assert asked.registries.manifest(REPOSITORY, digest, soon()).content == image("a")
            assert asked_for == []
            assert sent(hub, "Basic") == []


def test_a_realm_that_redirects_does_not_hand_the_password_on(world: World) -> None:
    for code in (301, 302, 303, 307, 308):
        world.show()
        world.hub.fault("/token", Redirect(world.evil.token_url, code))
        world.pull()
        assert sent(world.hub, "Basic")[-1] == BASICS[0]  # it was asked, and led elsewhere
        world.hub.heal()
    assert world.evil.token_requests == world.evil.requests == []
    assert_knows_nothing(world.evil, world.hub)


# Other registries


def test_another_registry_that_names_our_realm_is_not_spoken_for(world: World) -> None:
    """A stranger has the hub's realm asked for a token; with the password it would be the account's."""
    world.show()
    world.evil.push("library/alpine", "1", image("a"), TYPE)
    world.evil.challenge = f'Bearer realm="{world.hub.token_url}",service="fake-registry"'
    for reference in (Tag.parse("evil.example/library/alpine:1"), world.digest):
        with pytest.raises(NotPublic):
            world.asked.registries.manifest(Tag.parse("evil.example/library/alpine:1").repository, reference, soon())
    world.assert_nothing_got_out()


def test_two_registries_of_the_secret_do_not_get_each_others_password() -> None:
    with (
        FakeRegistry(token_field="token", accounts={"our-robot": "hunter2"}) as hub,
        FakeRegistry(token_field="token", accounts={"our-other-robot": "correct-horse"}) as other,
        asking({"docker.io": hub, "ghcr.io": other}, secret=HeldSecret(SECRET)) as asked,
    ):
        for fake in (hub, other):
            fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        ghcr = Tag.parse("ghcr.io/library/alpine:3.16.0")
        digest = Digest.of(image("a"))
        for tag in (ALPINE, ghcr):
            asked.registries.head(tag, soon())
        hub.challenge = f'Bearer realm="{other.token_url}"'
        other.challenge = f'Bearer realm="{hub.token_url}"'
        for tag in (ALPINE, ghcr):
            assert asked.registries.manifest(tag.repository, digest, soon()).content == image("a")
        assert sent(hub, "Basic") == sent(other, "Basic") == []
        hub.challenge = other.challenge = None
        for tag in (ALPINE, ghcr):
            asked.registries.manifest(tag.repository, digest, soon())
        assert (sent(hub, "Basic"), sent(other, "Basic")) == ([BASICS[0]], [BASICS[1]])


# Redirects


@pytest.mark.parametrize("method", ["GET", None])
def test_a_manifest_that_is_redirected_takes_neither_password_nor_token_along(world: World, method: str | None) -> None:
    """With method None the anonymous HEAD is redirected, too."""
    world.evil.push("library/alpine", "3.16.0", image("a"), TYPE)
    world.show()
    for challenge in (None, f'Bearer realm="{world.hub.token_url}",service="fake-registry"'):
        world.evil.challenge = challenge
        for path in (ALPINE_PATH, f"{MANIFESTS}{world.digest}"):
            world.hub.fault(path, Redirect(f"{world.evil.base_url}{path}"), method=method)
        for reference in (ALPINE, world.digest):
            try:
                manifest = world.asked.registries.manifest(REPOSITORY, reference, soon())
            except NotPublic:
                assert challenge is not None  # the hub's tokens are none of its
            else:
                assert manifest.content == image("a")
        world.hub.heal()
    assert world.evil.count() > 0
    assert_knows_nothing(world.evil, world.hub)
    tokens = (token for token in sent(world.evil, "Bearer"))
    assert [token for token in tokens if world.hub.holder(token) is not None] == []


def test_a_token_of_the_account_is_not_taken_along_when_its_manifest_is_redirected(world: World) -> None:
    world.evil.push("library/alpine", "3.16.0", image("a"), TYPE)
    world.show()
    world.pull()
    assert world.hub.pulled_by_account == 1  # its token is at hand from now on
    path = f"{MANIFESTS}{world.digest}"
    world.hub.fault(path, Redirect(f"{world.evil.base_url}{path}"))
    world.pull()
    assert world.evil.count() > 0
    assert_knows_nothing(world.evil, world.hub)


def test_a_blob_that_is_redirected_is_redirected_for_anybody(world: World) -> None:
    """The URL of a redirect may be made for who asked; this one goes to the client."""
    world.show()
    world.pull()
    world.hub.forget_requests()
    blob = Digest.parse(world.hub.push_blob("library/alpine", b"layer"))
    world.hub.fault(f"/v2/library/alpine/blobs/{blob}", Redirect(f"{world.evil.base_url}/storage?sig=x"))
    answer = world.asked.registries.blob(REPOSITORY, blob, head=False, range_=None, if_range=None, deadline=soon())
    assert answer == BlobRedirect(f"{world.evil.base_url}/storage?sig=x")
    assert [world.hub.holder(token) for token in sent(world.hub, "Bearer")] == [None]


# Challenges


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="{hub}"',
        'Basic realm="{hub}", Bearer realm="{evil}"',
        'Bearer realm="{evil}", Bearer realm="{hub}"',
        'Bearer realm="{hub} {evil}"',
        'Digest realm="{hub}"',
        "none",
    ],
)
def test_a_challenge_that_is_not_plainly_the_pinned_realms_is_not_answered(world: World, challenge: str) -> None:
    world.show()
    world.hub.challenge = challenge.format(hub=world.hub.token_url, evil=world.evil.token_url)
    world.pull()
    world.assert_nothing_got_out()


def test_a_challenge_with_two_realms_is_answered_to_the_pinned_one_or_not_at_all(world: World) -> None:
    world.show()
    for first, second in ((world.hub, world.evil), (world.evil, world.hub)):
        world.hub.challenge = f'Bearer realm="{first.token_url}",realm="{second.token_url}"'
        world.pull()
    assert_knows_nothing(world.evil, world.hub)


def test_a_ping_that_names_another_realm_is_not_sent_the_password(world: World) -> None:
    """A 401 without a challenge has us ask `/v2/` for one."""
    world.show()
    world.hub.fault(f"{MANIFESTS}{world.digest}", Status(401), times=1)
    evil = f'Bearer realm="{world.evil.token_url}"'
    world.hub.fault("/v2/", Status(401, {"WWW-Authenticate": evil}))
    world.pull()
    world.assert_nothing_got_out()


def test_a_challenge_cannot_widen_what_the_account_asks_for(world: World) -> None:
    world.show()
    for scope in (
        "repository:library/private:pull",
        "repository:library/alpine:pull,push,delete",
        "repository:library/alpine:pull repository:library/private:pull",
        "registry:catalog:*",
    ):
        world.hub.challenge = f'Bearer realm="{world.hub.token_url}",service="fake-registry",scope="{scope}"'
        world.clock.advance(SHOWN_S)  # no token, and nothing that was shown, is left
        world.show()
        world.pull()
    asked = {seen.query for seen in world.hub.token_requests}
    assert asked == {"service=fake-registry&scope=repository%3Alibrary%2Falpine%3Apull"}
    assert len(sent(world.hub, "Basic")) == 4


# Private repositories that the account may read

PRIVATE = Tag.parse("my-user/private:1")


def test_a_private_repository_is_refused_in_every_way_of_asking(world: World) -> None:
    digest = Digest.parse(world.hub.push("my-user/private", "1", image("private"), TYPE))
    blob = Digest.parse(world.hub.push_blob("my-user/private", b"private"))
    world.hub.private.add("my-user/private")
    world.show()
    world.pull()  # the account is in use
    for _ in range(2):
        assert world.asked.registries.head(PRIVATE, soon()).digest is None
        for reference in (PRIVATE, digest):
            with pytest.raises(NotPublic):
                world.asked.registries.manifest(PRIVATE.repository, reference, soon())
        for head in (True, False):
            with pytest.raises(NotPublic):
                world.asked.registries.blob(
                    PRIVATE.repository, blob, head=head, range_=None, if_range=None, deadline=soon()
                )
    scopes = [seen.query for seen in world.hub.token_requests if "authorization" in seen.headers]
    assert [scope for scope in scopes if "private" in scope] == []


def test_a_private_repository_is_refused_while_anonymous_clients_are_turned_away(world: World) -> None:
    digest = Digest.parse(world.hub.push("my-user/private", "1", image("private"), TYPE))
    world.hub.private.add("my-user/private")
    world.hub.fault("/v2/my-user/*", Status(429), method="HEAD")
    for reference in (PRIVATE, digest):
        with pytest.raises(RateLimited):
            world.asked.registries.manifest(PRIVATE.repository, reference, soon())
    assert sent(world.hub, "Basic") == []


def test_a_repository_that_turned_private_has_no_tags_at_once_and_nothing_after_the_window(world: World) -> None:
    old = Digest.parse(world.hub.push("my-user/private", "1", image("public"), TYPE))
    manifest = world.asked.registries.manifest
    assert manifest(PRIVATE.repository, PRIVATE, soon()).content == image("public")
    world.hub.private.add("my-user/private")
    new = Digest.parse(world.hub.push("my-user/private", "1", image("private"), TYPE))
    for reference in (PRIVATE, new):  # never shown to anybody
        with pytest.raises(NotPublic):
            manifest(PRIVATE.repository, reference, soon())
    assert world.asked.registries.head(PRIVATE, soon()).digest is None
    world.clock.advance(SHOWN_S - 1)
    assert manifest(PRIVATE.repository, old, soon()).content == image("public")  # what anybody was shown, for so long
    world.clock.advance(1)
    for reference in (PRIVATE, old, new):
        with pytest.raises(NotPublic):
            manifest(PRIVATE.repository, reference, soon())


def test_a_tag_that_moves_to_a_private_image_between_two_requests_is_not_served(world: World) -> None:
    """The HEAD shows one digest; whatever the tag is when the account asks, it asks for that digest."""
    private = world.hub.push("library/alpine", None, image("private"), TYPE)
    world.hub.fault(f"{MANIFESTS}{private}", Status(401), method="HEAD")
    world.hub.fault(
        ALPINE_PATH, Status(200, {"Docker-Content-Digest": str(world.digest), "Content-Type": TYPE}), method="HEAD"
    )
    world.hub.move("library/alpine", "3.16.0", private)
    assert world.asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("a")


def test_a_repository_that_does_not_exist_is_refused_as_a_private_one(world: World) -> None:
    world.hub.private.add("my-user/private")
    with pytest.raises(NotPublic):
        world.asked.registries.manifest(PRIVATE.repository, PRIVATE, soon())
    assert sent(world.hub, "Basic") == []


# The whole service


def test_a_private_image_is_never_served_recorded_or_logged(dev: DevSigstore, tmp_path: Path) -> None:
    name = "projects/my-project/secrets/upstream"
    with (
        FakeRegistry(token_field="token", accounts={"our-robot": "hunter2"}) as hub,
        FakeSecretManager() as manager,
    ):
        manager.add(name, json.dumps(SECRET).encode())
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": hub.base_url}),
            "TLOGISTRY_CREDENTIALS_SECRET": name,
            "TLOGISTRY_SECRET_MANAGER_ENDPOINT": manager.url,
        }
        hub.private.add("my-user/private")
        public = hub.push("library/alpine", "3.16.0", image("a"), TYPE)
        private = hub.push("my-user/private", "1", image("private"), TYPE)
        blob = hub.push_blob("my-user/private", b"private")
        with Function(settings) as function:
            answer = function.ask("GET", "/v2/alpine/manifests/3.16.0")
            assert (answer.status, answer.body) == (200, image("a"))
            assert answer.headers["tlog-first-seen"] == "true"
            assert function.ask("GET", f"/v2/alpine/manifests/{public}").body == image("a")
            assert hub.pulled_by_account == 1, "the manifest is held since then"
            for path in (
                "/v2/my-user/private/manifests/1",
                f"/v2/my-user/private/manifests/{private}",
                f"/v2/my-user/private/blobs/{blob}",
            ):
                for _ in range(2):
                    refused = function.ask("GET", path)
                    assert (refused.status, refused.code) == (404, "NAME_UNKNOWN")
                    assert "www-authenticate" not in refused.headers
                    assert function.ask("HEAD", path).status == 404
            assert function.ask("GET", "/sightings/my-user/private:1").status == 404
            printed = "\n".join(function.lines)
        assert digests_logged(dev.url, PRIVATE) == set()
        assert len(digests_logged(dev.url, ALPINE)) == 1
        assert "upstream credentials read" in printed
        for secret in (*SECRETS, *BASICS, *sent(hub, "Bearer")):
            assert secret not in printed
        assert len(manager.requests) == 1
