"""`/readyz` of the deployed bundle: what it says while something is away, and that asking it costs nobody anything."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from lib.config import BaseUrl
from lib.devsigstore.identity import EMAIL
from lib.handlers.health import CHECK_S, KEPT_S
from tests.cloud.bundle import TRUST
from tests.cloud.deployment import Deployment, identities
from tests.e2e.processes import wait_until
from tests.e2e.test_race import together
from tests.fakes.front import Front, answers
from tests.firestore import FirestoreEmulator, need_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from tests.cloud.deployment import Revision

WELL = {"store": "ok", "identity": "ok", "trust": "ok", "log": "ok"}
CLIENTS, TIMES = 20, 10
CALLS = 4  # of each dependency for one look, at most: the identity's are a ping and the token
SLACK_S = 5  # two busy cores
PATIENCE_S = 60


class World:
    """A deployment whose database and log are each behind a front that counts, and the emulator."""

    def __init__(self, deployment: Deployment, emulator: FirestoreEmulator, store: Front, log: Front) -> None:
        self.deployment, self.emulator, self.store, self.log = deployment, emulator, store, log
        self.dev = deployment.dev

    def calls(self) -> Counter[str]:
        """How often each dependency was called so far."""
        return Counter(store=len(self.store.seen), log=len(self.log.seen), identity=self.dev.calls["metadata"])


@pytest.fixture(scope="module")
def world(workshop: Path, programs: Path, sigstore: DevSigstore) -> Iterator[World]:
    need_emulator()
    folder = workshop / "readiness"
    folder.mkdir()
    with FirestoreEmulator(folder) as emulator, Front(str(emulator.url)) as store, Front(sigstore.url) as log:
        address = BaseUrl("http", "127.0.0.1", store.port)
        deployment = Deployment(folder / "deployment", programs, address, sigstore, {"docker.io": "http://127.0.0.1:9"})
        trust = deployment.function / TRUST
        parsed = json.loads(trust.read_text())
        parsed["signingConfig"]["rekorTlogUrls"][0]["url"] = log.url  # as Terraform's variable rekor_url does
        trust.write_text(json.dumps(parsed))
        yield World(deployment, emulator, store, log)


def says(revision: Revision, status: int, **away: str) -> bool:
    """Whether it says in time that all is well but these, whose texts begin like that."""
    started = time.monotonic()
    answer = revision.get("/readyz")
    assert time.monotonic() - started < CHECK_S + SLACK_S
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    said = answer.json()
    assert said.keys() == WELL.keys()
    others = {name: text for name, text in said.items() if name not in away}
    return (
        answer.status == status
        and others.items() <= WELL.items()
        and all(said[name].startswith(text) for name, text in away.items())
    )


def comes_to_say(revision: Revision, status: int, **away: str) -> bool:
    """As `says`, in the end: what takes longer than a check may take, on a busy machine, is looked for again."""
    return wait_until(lambda: says(revision, status, **away), PATIENCE_S)


def asked_often(revision: Revision, world: World) -> tuple[Counter[int], Counter[str], int]:
    """200 requests: their statuses, the calls that they cost, and how many looks their time allows."""
    statuses: list[int] = []

    def ask() -> None:
        statuses.extend(revision.get("/readyz").status for _ in range(TIMES))

    before, started = world.calls(), time.monotonic()
    together([ask] * CLIENTS)
    looks = 1 + math.floor((time.monotonic() - started) / KEPT_S)
    return Counter(statuses), world.calls() - before, looks


def test_everything_answers(world: World) -> None:
    with world.deployment.revision() as function:
        assert comes_to_say(function, http.client.OK)
        assert function.head("/readyz").body == b""


@pytest.mark.slow
def test_the_database_is_away_and_comes_back(world: World) -> None:
    with world.deployment.revision() as function:
        world.emulator.freeze()
        try:
            assert comes_to_say(function, http.client.SERVICE_UNAVAILABLE, store="")
            assert not says(function, http.client.SERVICE_UNAVAILABLE, store="ok")
            assert function.live()
            statuses, calls, looks = asked_often(function, world)
            assert statuses == {http.client.SERVICE_UNAVAILABLE: CLIENTS * TIMES}
            assert max(calls.values(), default=0) <= CALLS * looks
        finally:
            world.emulator.thaw()
        assert comes_to_say(function, http.client.OK)


def test_no_identity_token(world: World) -> None:
    world.dev.faults.set("metadata:before")
    try:
        with world.deployment.revision() as function:
            reason = "no identity token from the metadata server"
            assert comes_to_say(function, http.client.SERVICE_UNAVAILABLE, identity=reason)
    finally:
        world.dev.faults.set("")


def test_a_token_of_another_identity(world: World) -> None:
    with world.deployment.revision(TLOGISTRY_IDENTITIES=identities("somebody-else@example.com", EMAIL)) as function:
        reason = f"this service runs as {EMAIL} of "
        assert comes_to_say(function, http.client.SERVICE_UNAVAILABLE, identity=reason)


def test_the_log_is_away_which_recorded_tags_do_not_need(world: World) -> None:
    world.log.always = answers(502)
    try:
        with world.deployment.revision() as function:
            assert comes_to_say(function, http.client.OK, log="the transparency log answers with 502")
    finally:
        world.log.always = None


def test_the_log_is_not_searched(world: World) -> None:
    with world.deployment.revision(TLOGISTRY_LOG_SEARCH="off") as function:
        assert comes_to_say(function, http.client.OK, log="ok, but not searched (TLOGISTRY_LOG_SEARCH=off)")


def test_two_hundred_questions_cost_each_dependency_a_few_calls(world: World) -> None:
    with world.deployment.revision() as function:
        statuses, calls, looks = asked_often(function, world)
        assert statuses.total() == CLIENTS * TIMES
        assert calls.keys() == {"store", "log", "identity"}, "it was looked"
        assert max(calls.values()) <= CALLS * looks, calls
        assert comes_to_say(function, http.client.OK)
