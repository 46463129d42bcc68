"""Tokens, HEADs and GETs that are not spent: over HTTP, at a fake registry that counts."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lib.errors import NotPublic, RateLimited, TlogistryError, UpstreamUnavailable
from lib.oci.digest import Digest
from lib.upstream.upstream import NO_HINT
from tests.clock import Clock
from tests.fakes.habits import Habits
from tests.fakes.registry import FakeRegistry, Redirect, Status, image
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, asking, soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib.upstream.registry import Registries

BLOB = b"layer"


class World:
    def __init__(self, fake: FakeRegistry, registries: Registries, clock: Clock) -> None:
        self.fake, self.registries, self.clock = fake, registries, clock
        self.digest = fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        self.blob = Digest.parse(fake.push_blob("library/alpine", BLOB))

    def head(self) -> str | None:
        digest = self.registries.head(ALPINE, soon()).digest
        return str(digest) if digest is not None else None

    def get(self) -> str:
        return str(self.registries.manifest(ALPINE.repository, ALPINE, soon()).digest)

    def blob_length(self) -> str:
        answer = self.registries.blob(
            ALPINE.repository, self.blob, head=True, range_=None, if_range=None, deadline=soon()
        )
        return str(getattr(answer, "headers")["Content-Length"])  # noqa: B009 - one of two types

    def spent(self) -> tuple[str, int]:
        """Methods in their order since the last call, `-` after one without a token; and tokens."""
        methods = [seen.method + ("" if "authorization" in seen.headers else "-") for seen in self.fake.requests]
        tokens = len(self.fake.token_requests)
        self.fake.forget_requests()
        return " ".join(methods), tokens


@contextmanager
def serving(habits: Habits | None = None, *, token: bool = True) -> Iterator[World]:
    clock = Clock()
    with (
        FakeRegistry(token_field="token" if token else None, habits=habits or Habits()) as fake,
        asking({"docker.io": fake}, clock=clock.now) as asked,
    ):
        yield World(fake, asked.registries, clock)
        assert not fake.violations


def test_a_token_that_expired_is_renewed_before_the_registry_is_asked() -> None:
    with serving() as world:
        assert world.head() == world.digest
        assert world.spent() == ("HEAD- HEAD", 1)
        for _ in range(3):
            world.clock.advance(300)
            assert world.head() == world.digest
            assert world.spent() == ("HEAD", 1)


def test_many_who_come_when_a_token_has_expired_share_a_new_one() -> None:
    with serving() as world:
        world.head()
        world.spent()
        world.clock.advance(300)
        world.fake.delay_ms = 200.0
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: world.head(), range(8))) == {world.digest}
        assert world.spent() == (" ".join(["HEAD"] * 8), 1)


def test_a_token_service_that_went_away_is_asked_once_more_and_then_forgotten() -> None:
    """A registry may stop wanting tokens."""
    with serving() as world:
        assert world.head() == world.digest
        world.spent()
        world.clock.advance(300)
        world.fake.token_field = None
        assert world.head() == world.digest
        assert world.spent() == ("HEAD-", 1)
        assert world.head() == world.digest
        assert world.spent() == ("HEAD-", 0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_refuses_head_for_blobs_costs_no_token_each_time(status: int) -> None:
    with serving(Habits(blob_head=status)) as world:
        assert world.blob_length() == str(len(BLOB))
        assert world.spent() == ("HEAD- HEAD GET", 1)
        for _ in range(3):
            assert world.blob_length() == str(len(BLOB))
            assert world.spent() == ("HEAD GET", 0)


def test_a_registry_that_refuses_missing_tags_costs_no_token_for_each() -> None:
    """Artifactory answers 403 for them (GGCR#1691)."""
    with serving(Habits(unknown_tag=403)) as world:
        world.get()
        world.spent()
        world.fake.delete("library/alpine", "3.16.0")
        for _ in range(3):
            with pytest.raises(NotPublic):
                world.get()
            assert world.spent() == ("GET", 0)


def test_a_token_that_the_registry_no_longer_takes_is_replaced_at_once() -> None:
    with serving() as world:
        world.get()
        world.spent()
        world.fake.revoke()
        assert world.get() == world.digest
        assert world.spent() == ("GET GET", 1)
        world.fake.revoke()
        assert world.blob_length() == str(len(BLOB))
        assert world.spent() == ("HEAD GET GET", 1)


def test_a_head_that_is_refused_without_a_challenge_is_no_answer() -> None:
    """Where a HEAD is 401 and a GET works, `/v2/` has nothing to say either."""
    with serving(Habits(manifest_head=401, blob_head=401), token=False) as world:
        assert world.registries.head(ALPINE, soon()) == NO_HINT
        assert world.get() == world.digest
        assert world.blob_length() == str(len(BLOB))


PINGS = [
    (Status(429, {"Retry-After": "7"}), RateLimited, "asks to wait"),
    (Status(500), UpstreamUnavailable, "answered 500"),
    (Status(503), UpstreamUnavailable, "answered 503"),
    (Status(418), UpstreamUnavailable, "answered 418"),
    (Status(200), NotPublic, "without an account"),
    (Status(403), NotPublic, "without an account"),
    (Status(404), NotPublic, "without an account"),
    (Redirect("/login"), NotPublic, "without an account"),
]


@pytest.mark.parametrize(("fault", "error", "words"), PINGS, ids=lambda value: repr(value)[:30])
def test_an_outage_where_a_challenge_is_looked_for_is_no_private_repository(
    fault: Status | Redirect, error: type[TlogistryError], words: str
) -> None:
    with serving() as world:
        world.fake.challenge = "none"
        world.fake.fault("/v2/", fault)
        with pytest.raises(error, match=re.escape(words)):
            world.get()


@pytest.mark.parametrize("said", ['"43200"', "43200", "43200.0"])
def test_a_token_lives_as_long_as_it_is_said_however_that_is_written(said: str) -> None:
    with serving() as world:
        body = b'{"token": "t0k3n", "expires_in": ' + said.encode() + b"}"
        world.fake.challenge = f'Bearer realm="{world.fake.token_url}"'
        world.fake.fault("/token", Status(200, {}, body))
        world.fake.fault(ALPINE_PATH, Status(401, {"WWW-Authenticate": world.fake.challenge}), times=1)
        world.fake.token_field = None
        world.head()
        assert len(world.fake.token_requests) == 1
        world.clock.advance(43_000)
        world.head()
        assert len(world.fake.token_requests) == 1
        world.fake.violations.clear()  # it is a token that the fake did not give out
