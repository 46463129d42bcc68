"""Anonymous tokens, from the 401 to the cache."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from lib.errors import NotPublic, RateLimited, UpstreamUnavailable
from lib.oci.reference import Tag
from lib.upstream.limits import Limits
from lib.upstream.token import scope
from tests.clock import Clock
from tests.fakes.registry import FakeRegistry, Html, Redirect, Status, image
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, asking, soon


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_first_request_fetches_a_token_and_the_next_is_one_call(field: Literal["token", "access_token"]) -> None:
    with FakeRegistry(token_field=field) as fake, asking({"docker.io": fake}) as asked:
        digest = fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        assert str(asked.registries.head(ALPINE, soon()).digest) == digest
        assert (fake.count(), len(fake.token_requests)) == (2, 1)
        fake.forget_requests()
        for number in range(1, 4):
            assert str(asked.registries.head(ALPINE, soon()).digest) == digest
            assert (fake.count(), len(fake.token_requests)) == (number, 0)
        assert asked.registries.manifest(ALPINE.repository, ALPINE, soon()).content == image("a")
        assert (fake.count(), len(fake.token_requests)) == (4, 0)


def test_the_token_is_asked_for_with_service_and_scope_after_the_realms_own_query() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        scope_ = "repository:library/alpine:pull"
        fake.challenge = f'Bearer service="fake registry",scope="{scope_}",realm="{fake.token_url}?account=x"'
        asked.registries.head(ALPINE, soon())
        assert fake.token_requests[0].query == (
            "account=x&service=fake%20registry&scope=repository%3Alibrary%2Falpine%3Apull"
        )
        assert fake.token_requests[0].headers.keys() == {"host", "user-agent", "via", "accept", "accept-encoding"}


def test_a_challenge_without_service_asks_without_service() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        fake.challenge = f'Bearer realm="{fake.token_url}"'
        asked.registries.head(ALPINE, soon())
        assert fake.token_requests[0].query == "scope=repository%3Alibrary%2Falpine%3Apull"


SCOPES = {
    "repository:a/b:pull": "repository:a/b:pull",
    "repository(plugin):a/b:pull": "repository(plugin):a/b:pull",
    "repository:user/image:pull": "repository:a/b:pull",
    "repository:a/b:pull,push": "repository:a/b:pull",
    "repository:a/b:pull repository:c/d:pull": "repository:a/b:pull",
    "repository:a/b:*": "repository:a/b:pull",
    "registry:catalog:*": "repository:a/b:pull",
    "": "repository:a/b:pull",
    None: "repository:a/b:pull",
}


@pytest.mark.parametrize("offered", SCOPES)
def test_a_scope_is_taken_only_if_it_is_for_pulling_this_repository(offered: str | None) -> None:
    assert scope(offered, "a/b") == SCOPES[offered]


def test_ghcrs_placeholder_scope_is_not_used() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        fake.challenge = f'Bearer realm="{fake.token_url}",service="x",scope="repository:user/image:pull"'
        assert asked.registries.head(ALPINE, soon()).digest is not None


def test_a_401_without_a_challenge_is_answered_by_that_of_the_ping() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, Status(401), times=1)
        assert asked.registries.head(ALPINE, soon()).digest is not None
        assert [seen.path for seen in fake.requests] == [ALPINE_PATH, "/v2/", ALPINE_PATH]


@pytest.mark.parametrize("challenge", ["none", 'Basic realm="x"', "Negotiate"])
def test_a_registry_that_offers_no_bearer_is_not_public(challenge: str) -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.challenge = challenge
        with pytest.raises(NotPublic, match="without an account"):
            asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert fake.token_requests == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_does_not_help_means_not_public_and_is_not_kept(status: int) -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Status(status, {"WWW-Authenticate": f'Bearer realm="{fake.token_url}"'}))
        for _ in range(2):
            with pytest.raises(NotPublic):
                asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert fake.count() == (4 if status == 401 else 2)
        assert len(fake.token_requests) == (2 if status == 401 else 0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_server_that_refuses_means_not_public(status: int) -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.fault("/token", Status(status, {}, b"secret detail"))
        with pytest.raises(NotPublic, match="no anonymous token") as caught:
            asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert "secret" not in str(caught.value)


def test_a_busy_token_server_is_a_rate_limit() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.fault("/token", Status(429, {"Retry-After": "9"}))
        with pytest.raises(RateLimited) as caught:
            asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert caught.value.retry_after == 9


USELESS = (
    Status(500), Status(404), Status(204), Html(), Status(200, {}, b"[]"), Status(200, {}, b"{}"), Status(200, {}, b"null"),
    Status(200, {}, b'{"token": 5}'), Status(200, {}, b'{"token": ""}'), Status(200, {}, b'{"token": "a b"}'),
    Status(200, {}, b'{"token": "a\\r\\nX-Injected: 1"}'), Status(200, {}, b'{"token": "\\u00e9"}'), Status(200, {}, b"\xff"),
    Status(200, {}, json.dumps({"token": "x" * 20_000}).encode()), Status(200, {}, b"[" * 50_000),
    Status(200, {}, b'{"token": "x", "y": "' + b"y" * 70_000 + b'"}'), Redirect("/token"), Redirect("http://169.254.169.254/"),
)  # fmt: skip


@pytest.mark.parametrize("fault", USELESS, ids=lambda fault: ascii(fault)[:60])
def test_a_token_server_that_gives_no_token_is_unavailable(fault: Status | Html | Redirect) -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.fault("/token", fault)
        with pytest.raises(UpstreamUnavailable, match=r"127\.0\.0\.1"):
            asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert len(fake.token_requests) == 1
        assert fake.count() == 1


LIVES = {300: 290, 60: 54, None: 54, 10: 9, 43_200: 43_190, 10**9: 86_390}


@pytest.mark.parametrize("expires_in", LIVES)
def test_a_token_is_dropped_before_it_expires(expires_in: int | None) -> None:
    clock = Clock()
    with (
        FakeRegistry(token_field="token", expires_in=expires_in) as fake,
        asking({"docker.io": fake}, clock=clock.now) as asked,
    ):
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        asked.registries.head(ALPINE, soon())
        clock.advance(LIVES[expires_in] - 0.5)
        asked.registries.head(ALPINE, soon())
        assert len(fake.token_requests) == 1
        clock.advance(1)
        asked.registries.head(ALPINE, soon())
        assert len(fake.token_requests) == 2


@pytest.mark.parametrize("expires_in", [0, -5])
def test_a_token_that_was_born_expired_is_used_for_its_one_request(expires_in: int) -> None:
    with (
        FakeRegistry(token_field="token", expires_in=expires_in) as fake,
        asking({"docker.io": fake}, clock=Clock().now) as asked,
    ):
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        for number in range(1, 4):
            assert asked.registries.head(ALPINE, soon()).digest is not None
            assert len(fake.token_requests) == number
        assert len({seen.headers["authorization"] for seen in fake.requests if "authorization" in seen.headers}) == 3


def test_a_token_that_the_registry_revoked_is_fetched_again() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        asked.registries.head(ALPINE, soon())
        fake.revoke()
        assert asked.registries.head(ALPINE, soon()).digest is not None
        assert len(fake.token_requests) == 2


def test_each_repository_has_a_token_of_its_own() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        for name in ("library/alpine", "library/debian"):
            fake.push(name, "1", image(name), TYPE)
        for text in ("alpine:1", "debian:1", "alpine:1"):
            assert asked.registries.head(Tag.parse(text), soon()).digest is not None
        assert len(fake.token_requests) == 2
        assert len({seen.headers.get("authorization") for seen in fake.requests}) == 3


def test_only_so_many_tokens_are_held() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}, limits=Limits(tokens=2)) as asked:
        for name in ("a", "b", "c", "a"):
            fake.push(f"library/{name}", "1", image(name), TYPE)
            asked.registries.head(Tag.parse(f"{name}:1"), soon())
        assert len(fake.token_requests) == 4


def test_a_token_is_in_no_log_line_and_no_error() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        asked.registries.head(ALPINE, soon())
        token = asked.registries.head(ALPINE, soon()) and fake.requests[-1].headers["authorization"].removeprefix(
            "Bearer "
        )
        fake.fault("*", Status(500))
        with pytest.raises(UpstreamUnavailable) as caught:
            asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert token
        assert token not in str(caught.value) + str(asked.log) + repr(asked.registries)
