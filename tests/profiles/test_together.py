"""Many who ask for one thing at once: one request upstream, and nobody gets another one's answer.

In this process, so that a test knows when all but one of its threads stand and wait; the registry holds its answer until then.
"""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import pytest

from lib.config import BaseUrl
from lib.deadline import Deadline
from lib.errors import DeadlineExceeded, NotFound, TlogistryError, UpstreamUnavailable
from lib.handlers.manifests import Manifests
from lib.oci.digest import Digest
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from lib.upstream.addresses import Lookups, system_resolver
from lib.upstream.challenge import Challenge
from lib.upstream.credentials import Credential
from lib.upstream.guard import Guard
from lib.upstream.limits import Limits
from lib.upstream.shared import SharedUpstream
from lib.upstream.token import Audience, Tokens
from lib.upstream.transport import Transport
from tests.fakes.registry import FakeRegistry, Hang, Held, Status
from tests.profiles.conftest import manifest
from tests.sigstore import Parts
from tests.upstream.support import Asking, asking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from lib.handlers.response import Response

T = TypeVar("T")
CROWD = 30
LONG_S = 60  # seconds that something may take on a busy machine before a test gives it up
PATIENT = Limits(follow_s=LONG_S, read_s=LONG_S)
TAG = Tag.parse("plain.example/org/app:1.0")
TAG_PATH = "/v2/org/app/manifests/1.0"


def long() -> Deadline:
    return Deadline.after(LONG_S, time.monotonic)


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


class Crowd(Generic[T]):
    """Threads that do one thing each, and what came of it."""

    def __init__(self, work: list[Callable[[], T]]) -> None:
        self._found: list[T | TlogistryError | None] = [None] * len(work)

        def run(number: int, one: Callable[[], T]) -> None:
            try:
                self._found[number] = one()
            except TlogistryError as error:
                self._found[number] = error

        self._threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(work)]
        for thread in self._threads:
            thread.start()

    def lined_up(self) -> bool:
        """Whether all but one, who asks the registry, stand and wait for another thread; nobody is done yet."""
        early = [found for found in self._found if found is not None]
        assert not early, early
        return self._waiting() == len(self._threads) - 1

    def _waiting(self) -> int:
        frames = sys._current_frames()  # noqa: SLF001 - the interpreter's own view
        standing = 0
        for thread in self._threads:
            frame = frames.get(thread.ident or 0)
            while frame is not None and frame.f_code is not threading.Condition.wait.__code__:
                frame = frame.f_back
            standing += frame is not None
        return standing

    def outcomes(self) -> list[T | TlogistryError | None]:
        for thread in self._threads:
            thread.join(LONG_S)
            assert not thread.is_alive()
        return self._found


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("org/app", "1.0", manifest(1), OCI_MANIFEST)
        yield registry


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


class Instance:
    """Handler, recorder and registries as in one instance."""

    def __init__(self, ask: Asking, recorder: Parts, limits: Limits) -> None:
        self._manifests = Manifests(SharedUpstream(ask.registries, limits), recorder.recorder())

    def get(self, reference: Tag | Digest, *, head: bool = False) -> Response:
        return self._manifests.handle(TAG.repository, reference, head=head, host="HOST", deadline=long())


@pytest.fixture
def instance(fake: FakeRegistry, dev: DevSigstore, tmp_path: Path) -> Iterator[Instance]:
    with asking({"plain.example": fake}, limits=PATIENT) as ask:
        yield Instance(ask, Parts(dev, tmp_path / "store.sqlite"), PATIENT)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_thirty_requests_for_one_recorded_tag_cost_one_head(
    instance: Instance, fake: FakeRegistry, gate: threading.Event, method: str
) -> None:
    assert instance.get(TAG).status == 200
    fake.forget_requests()
    fake.fault(TAG_PATH, Held(gate))
    crowd = Crowd([lambda: instance.get(TAG, head=method == "HEAD")] * CROWD)
    until(crowd.lined_up)
    gate.set()
    answers = crowd.outcomes()
    assert [getattr(answer, "status", answer) for answer in answers] == [200] * CROWD
    assert [seen.method for seen in fake.requests] == ["HEAD"]


def test_thirty_requests_for_one_new_tag_cost_one_get_and_one_entry(
    instance: Instance, fake: FakeRegistry, gate: threading.Event, dev: DevSigstore
) -> None:
    fake.fault(TAG_PATH, Held(gate))
    crowd = Crowd([lambda: instance.get(TAG)] * CROWD)
    until(crowd.lined_up)
    gate.set()
    answers = crowd.outcomes()
    assert [getattr(answer, "status", answer) for answer in answers] == [200] * CROWD
    assert [seen.method for seen in fake.requests] == ["GET"]
    assert dev.calls["append"] == 1


def test_thirty_requests_for_one_manifest_by_digest_cost_one_get(
    instance: Instance, fake: FakeRegistry, gate: threading.Event
) -> None:
    digest = Digest.of(manifest(1))
    fake.fault(f"/v2/org/app/manifests/{digest}", Held(gate))
    crowd = Crowd([lambda: instance.get(digest)] * CROWD)
    until(crowd.lined_up)
    gate.set()
    assert [getattr(answer, "body", answer) for answer in crowd.outcomes()] == [manifest(1)] * CROWD
    assert [seen.method for seen in fake.requests] == ["GET"]


def test_thirty_requests_that_need_one_token_cost_one_token(gate: threading.Event) -> None:
    with FakeRegistry(token_field="token") as fake, asking({"plain.example": fake}, limits=PATIENT) as ask:
        digests = [Digest.parse(fake.push("org/app", None, manifest(number), OCI_MANIFEST)) for number in range(CROWD)]
        fake.fault("/token", Held(gate))
        crowd = Crowd([partial(ask.registries.manifest, TAG.repository, one, long()) for one in digests])
        until(crowd.lined_up)
        gate.set()
        assert [getattr(found, "digest", found) for found in crowd.outcomes()] == digests
        assert len(fake.token_requests) == 1
        assert len({seen.headers["authorization"] for seen in fake.requests if "authorization" in seen.headers}) == 1


@pytest.mark.parametrize(
    ("status", "error"), [(500, UpstreamUnavailable), (404, NotFound)], ids=["unavailable", "not found"]
)
def test_a_failure_is_shared_once_and_not_kept_for_those_who_come_later(
    fake: FakeRegistry, gate: threading.Event, status: int, error: type[TlogistryError]
) -> None:
    now = [0.0]
    with asking({"plain.example": fake}, limits=PATIENT) as ask:
        shared = SharedUpstream(ask.registries, PATIENT)
        fake.fault(TAG_PATH, Held(gate, Status(status)), times=1)
        crowd = Crowd([lambda: shared.manifest(TAG.repository, TAG, long())] * CROWD)
        until(crowd.lined_up)
        gate.set()
        outcomes = crowd.outcomes()
        assert all(type(outcome) is error for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == CROWD, "one error in two threads mixes their tracebacks"
        assert fake.count() == 1
        now[0] = time.monotonic() + PATIENT.absent_s
        later = Deadline.after(LONG_S, lambda: max(now[0], time.monotonic()))
        assert shared.manifest(TAG.repository, TAG, later).content == manifest(1)


@pytest.mark.parametrize("what", ["head", "manifest"])
def test_a_leader_out_of_time_costs_nobody_else_an_answer(fake: FakeRegistry, what: str) -> None:
    with asking({"plain.example": fake}, limits=PATIENT) as ask:
        shared = SharedUpstream(ask.registries, PATIENT)

        def call(deadline: Deadline) -> object:
            if what == "head":
                return shared.head(TAG, deadline).digest
            return shared.manifest(TAG.repository, TAG, deadline).digest

        fake.fault(TAG_PATH, Hang(), times=1)
        leader = Crowd([lambda: call(Deadline.after(1.0, time.monotonic))])
        until(lambda: fake.count() == 1)
        crowd = Crowd([lambda: call(long())] * CROWD)
        (failed,) = leader.outcomes()
        assert isinstance(failed, DeadlineExceeded)
        assert crowd.outcomes() == [Digest.of(manifest(1))] * CROWD


def test_a_leader_that_hangs_is_left_behind(fake: FakeRegistry, gate: threading.Event) -> None:
    impatient = Limits(follow_s=0.05, read_s=LONG_S)
    with asking({"plain.example": fake}, limits=impatient) as ask:
        shared = SharedUpstream(ask.registries, impatient)
        fake.fault(TAG_PATH, Held(gate), times=1)
        leader = Crowd([lambda: shared.manifest(TAG.repository, TAG, long())])
        until(lambda: fake.count() == 1)
        crowd = Crowd([lambda: shared.manifest(TAG.repository, TAG, long())] * 4)
        assert all(getattr(found, "content", None) == manifest(1) for found in crowd.outcomes())
        gate.set()
        (late,) = leader.outcomes()
        assert getattr(late, "content", None) == manifest(1)


def test_different_things_are_never_one(fake: FakeRegistry, gate: threading.Event) -> None:
    """The same name at another registry, another repository with the same digest, another tag, HEAD and GET."""
    digest = Digest.of(manifest(1))
    fake.push("org/other", "1.0", manifest(1), OCI_MANIFEST)
    fake.push("org/app", "2.0", manifest(2), OCI_MANIFEST)
    with FakeRegistry() as elsewhere:
        elsewhere.push("org/app", "1.0", manifest(3), OCI_MANIFEST)
        with asking({"plain.example": fake, "else.example": elsewhere}, limits=PATIENT) as ask:
            shared = SharedUpstream(ask.registries, PATIENT)
            tags = [
                Tag.parse(f"{name}")
                for name in ("plain.example/org/app:1.0", "plain.example/org/app:2.0", "plain.example/org/other:1.0")
            ]
            away = Tag.parse("else.example/org/app:1.0")
            for registry in (fake, elsewhere):
                registry.fault("*", Held(gate))
            asked = [
                *[partial(shared.manifest, tag.repository, tag, long()) for tag in (*tags, away)],
                *[partial(shared.head, tag, long()) for tag in (*tags, away)],
                *[partial(shared.manifest, tag.repository, digest, long()) for tag in (tags[0], tags[2])],
            ]
            crowd = Crowd[object](asked)  # type: ignore[arg-type]  # whatever each gives
            until(lambda: fake.count() + elsewhere.count() == 10)
            gate.set()
            first = [digest, Digest.of(manifest(2)), digest, Digest.of(manifest(3))]
            found = [getattr(outcome, "digest", outcome) for outcome in crowd.outcomes()]
            assert found == [*first, *first, digest, digest]


def test_a_token_is_never_shared_between_accounts_or_repositories(gate: threading.Event) -> None:
    with FakeRegistry(token_field="token", accounts={"robot": "hunter2", "other": "hunter3"}) as fake:
        origin = BaseUrl.parse(fake.base_url)
        guard = Guard(frozenset({origin}))
        challenge = Challenge(fake.token_url, "fake-registry", None)
        transport = Transport(Lookups(system_resolver, PATIENT), time.monotonic, PATIENT)
        tokens = Tokens(transport, time.monotonic, PATIENT)
        fake.fault("/token", Held(gate))
        accounts = [None, *(Credential(*item) for item in fake.accounts.items())] if fake.accounts else []
        asked = [
            (Audience("plain.example", origin, repository, account), account.basic if account is not None else None)
            for repository in ("org/app", "org/other")
            for account in accounts
        ]
        crowd = Crowd(
            [partial(tokens.fetch, whose, challenge, guard, long(), authorization) for whose, authorization in asked]
        )
        until(lambda: len(fake.token_requests) == len(asked) == 6)
        gate.set()
        given = crowd.outcomes()
        transport.close()
        assert [fake.holder(str(token)) for token in given] == [None, "robot", "other"] * 2
        assert [tokens.held(whose) for whose, _ in asked] == given


@pytest.mark.parametrize("expires_in", [10, 60, 300, 3600, None])
def test_a_token_is_used_until_at_most_a_tenth_of_its_life_is_left(expires_in: int | None) -> None:
    now = [1000.0]
    life = float(expires_in if expires_in is not None else 60)
    with FakeRegistry(token_field="token", expires_in=expires_in) as fake:
        digest = Digest.parse(fake.push("org/app", "1.0", manifest(1), OCI_MANIFEST))
        with asking({"plain.example": fake}, clock=lambda: now[0]) as ask:
            for age, tokens in ((0.0, 1), (0.5 * life, 1), (0.9 * life - 0.01, 1), (life, 2)):
                now[0] = 1000.0 + age
                ask.registries.manifest(TAG.repository, digest, long())
                assert len(fake.token_requests) == tokens, age
