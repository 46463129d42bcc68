"""What is asked for once, for how long absence is believed, and which HEADs are spared. Over HTTP, at a fake registry."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lib.deadline import Deadline
from lib.errors import NotFound, NotPublic, TlogistryError, UpstreamUnavailable
from lib.oci.reference import Tag
from lib.upstream.limits import Limits
from lib.upstream.shared import SharedUpstream
from tests.clock import Clock
from tests.fakes.registry import DigestHeader, FakeRegistry, Status, image
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, asking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMITS = Limits(follow_s=30.0, absent_s=3.0, headless_s=300.0)


class World:
    def __init__(self, fake: FakeRegistry, upstream: SharedUpstream, clock: Clock) -> None:
        self.fake, self.upstream, self.clock = fake, upstream, clock
        self.digest = fake.push("library/alpine", "3.16.0", image("a"), TYPE)

    def soon(self) -> Deadline:
        return Deadline.after(60.0, self.clock.now)

    def head(self, tag: Tag = ALPINE) -> str | None:
        digest = self.upstream.head(tag, self.soon()).digest
        return str(digest) if digest is not None else None

    def get(self, tag: Tag = ALPINE) -> str:
        return str(self.upstream.manifest(tag.repository, tag, self.soon()).digest)


@contextmanager
def serving(*, delay_ms: float = 0.0, token: bool = False) -> Iterator[World]:
    clock = Clock()
    with (
        FakeRegistry(delay_ms=delay_ms, token_field="token" if token else None) as fake,
        asking({"docker.io": fake}, clock=clock.now) as asked,
    ):
        yield World(fake, SharedUpstream(asked.registries, LIMITS), clock)


def at_once(count: int, ask: Callable[[], object]) -> list[object]:
    """What each of so many threads got."""
    answers: list[object] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait()
        try:
            answers.append(ask())
        except TlogistryError as error:
            answers.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_concurrent_requests_for_one_tag_cost_the_upstream_one_of_each() -> None:
    with serving(delay_ms=600) as world:
        assert at_once(12, world.head) == [world.digest] * 12
        assert world.fake.count("HEAD") == 1
        assert at_once(12, world.get) == [world.digest] * 12
        assert world.fake.count("GET") == 1


def test_concurrent_requests_for_different_tags_of_one_repository_cost_one_token() -> None:
    with serving(delay_ms=600, token=True) as world:
        tags = [Tag.parse(f"alpine:{number}") for number in range(8)]
        for tag in tags:
            world.fake.push("library/alpine", tag.name, image("a"), TYPE)
        left = iter(tags)
        assert at_once(8, lambda: world.get(next(left))) == [world.digest] * 8
        assert len(world.fake.token_requests) == 1


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (403, NotPublic)])
def test_what_is_not_there_is_believed_for_some_seconds_and_then_asked_for_again(
    status: int, error: type[TlogistryError]
) -> None:
    with serving() as world:
        world.fake.fault("/v2/library/alpine/manifests/*", Status(status))
        for _ in range(5):
            with pytest.raises(error):
                world.get()
        if status == 404:
            with pytest.raises(error):
                world.head()
        assert world.fake.count("GET") == 1
        world.fake.heal()
        world.clock.advance(2.9)
        with pytest.raises(error):
            world.get()
        world.clock.advance(0.2)
        assert world.get() == world.digest


def test_nothing_but_absence_is_believed() -> None:
    with serving() as world:
        for code in (500, 429):
            world.fake.fault("/v2/library/alpine/manifests/*", Status(code))
            with pytest.raises(TlogistryError):
                world.get()
            world.fake.heal()
            assert world.get() == world.digest


def test_a_tag_that_tools_write_just_before_they_read_it_is_always_asked_for() -> None:
    with serving() as world:
        signature = Tag.parse(f"alpine:sha256-{'a' * 64}.sig")
        with pytest.raises(NotFound):
            world.get(signature)
        world.fake.push("library/alpine", signature.name, image("signature"), TYPE)
        assert world.get(signature)


@pytest.mark.parametrize("fault", [Status(405), Status(403), DigestHeader(None)], ids=str)
def test_a_repository_whose_head_is_no_help_is_asked_by_get_alone_for_a_while(fault: Status | DigestHeader) -> None:
    with serving() as world:
        world.fake.fault("/v2/library/alpine/manifests/*", fault, method="HEAD")
        for _ in range(3):
            assert world.head() is None
            assert world.get() == world.digest
        assert world.fake.count("HEAD") == 1
        world.fake.heal()
        world.clock.advance(301)
        assert world.head() == world.digest


def test_a_refused_head_of_what_is_not_there_costs_nobody_their_heads() -> None:
    """Docker Hub answers 401 for what does not exist: asking for that must not turn everybody's HEADs into GETs."""
    with serving() as world:
        world.fake.fault("/v2/library/alpine/manifests/nothing", Status(403))
        missing = Tag.parse("alpine:nothing")
        assert world.head(missing) is None
        with pytest.raises(NotPublic):
            world.get(missing)
        assert world.head() == world.digest
        assert world.fake.count("HEAD") == 2


def test_a_failure_of_the_leader_is_not_kept() -> None:
    with serving() as world:
        world.fake.fault(ALPINE_PATH, Status(502), times=1)
        with pytest.raises(UpstreamUnavailable):
            world.head()
        assert world.head() == world.digest


def test_a_head_that_says_a_wrong_digest_is_spared_after_the_first_one() -> None:
    """Some registries' header is not the digest of their bytes: a HEAD there is always followed by a GET (kaniko#298)."""
    with serving() as world:
        world.fake.fault(ALPINE_PATH, DigestHeader("sha256:" + "0" * 64))
        assert world.head() != world.digest
        assert world.get() == world.digest
        world.fake.forget_requests()
        assert world.head() is None
        assert world.get() == world.digest
        assert [seen.method for seen in world.fake.requests] == ["GET"]
        world.clock.advance(301)
        world.fake.heal()
        assert world.head() == world.digest


def test_a_tag_that_moved_is_no_wrong_digest() -> None:
    with serving() as world:
        world.head()
        other = world.fake.push("library/alpine", "3.16.0", image("b"), TYPE)
        assert world.head() == other
        assert world.get() == other
        assert world.head() == other
