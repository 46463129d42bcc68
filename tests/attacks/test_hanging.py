"""An upstream that hangs holds its own requests, and nobody else's."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore
from lib.oci.manifest import OCI_MANIFEST
from lib.upstream.limits import Limits
from tests.fakes.registry import FakeRegistry, Hang
from tests.framework import Function
from tests.handlers.test_http import World, manifest, path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.framework import Answer

AS_BEFORE_S = 4.0  # on two busy cores; a hanging request takes 10 s
DEPLOYED = 80  # threads, and as many requests at once as Cloud Run gives one instance


def eventually(world: World, hanging: int) -> None:
    """Wait until so many requests hang at the upstream."""
    until = time.monotonic() + 20
    while world.registry.count(pattern="*hang*") < hanging:
        assert time.monotonic() < until, "they do not even arrive"
        time.sleep(0.02)


@contextmanager
def hanging(world: World, number: int) -> Iterator[list[Answer]]:
    """So many requests to one upstream that does not answer, for a tag each; the list fills with their answers."""
    world.registry.fault("*hang*", Hang())
    answers: list[Answer] = []
    asked = [path(f"a/hang{n}") for n in range(number)]
    threads = [threading.Thread(target=lambda asked=asked: answers.append(world.get(asked))) for asked in asked]
    for thread in threads:
        thread.start()
    try:
        eventually(world, min(number, Limits().calls))
        yield answers
    finally:
        for thread in threads:
            thread.join()
        world.registry.heal()


def assert_the_rest_goes_on(world: World, new: str, within_s: float) -> None:
    """The ping, a warm tag and a new tag of another upstream, a blob of it, and a warm tag's record."""
    world.other.push(f"new/{new}", "1.0", manifest(3), OCI_MANIFEST)
    blob = world.other.push_blob("warm/app", b"blob")
    for method, asked in (
        ("GET", "/v2/"),
        ("GET", "/livez"),
        ("HEAD", "/v2/other.example/warm/app/manifests/1.0"),
        ("GET", "/v2/other.example/warm/app/manifests/1.0"),
        ("GET", f"/v2/other.example/new/{new}/manifests/1.0"),
        ("GET", f"/v2/other.example/warm/app/blobs/{blob}"),
        ("GET", "/sightings/other.example/warm/app:1.0"),
    ):
        started = time.monotonic()
        answer = world.function.ask(method, asked)
        assert time.monotonic() - started < within_s, asked
        assert answer.status == 200
        assert ("tlog-first-seen" in answer.headers) == ("/new/" in asked)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service with as many threads as in the cloud, and a deadline that leaves room to hang."""
    folder = tmp_path_factory.mktemp("deployed")
    with DevSigstore(folder) as dev, FakeRegistry() as registry, FakeRegistry() as other:
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": registry.base_url, "other.example": other.base_url}),
        }
        with Function(settings, threads=DEPLOYED) as function:
            made = World(registry, other, dev, function)
            other.push("warm/app", "1.0", manifest(3), OCI_MANIFEST)
            assert made.get("/v2/other.example/warm/app/manifests/1.0").status == 200
            yield made


@pytest.mark.slow
def test_eight_hanging_requests_leave_the_ping_other_upstreams_and_their_warm_tags_as_before(deployed: World) -> None:
    with hanging(deployed, 8) as answers:
        assert_the_rest_goes_on(deployed, "eight", AS_BEFORE_S)
        assert answers == [], "they still hang"
    assert {answer.status for answer in answers} == {503}


@pytest.mark.slow
def test_as_many_hanging_requests_as_threads_hold_them_only_until_it_is_clear_that_the_upstream_hangs(
    deployed: World,
) -> None:
    """32 are at the upstream, others wait for a place, but not for long, and only once; and they are never all threads."""
    with hanging(deployed, DEPLOYED) as answers:
        assert_the_rest_goes_on(deployed, "eighty", Limits().stall_s + AS_BEFORE_S)
        started = time.monotonic()
        assert "does not answer" in deployed.get(path("a/hang")).message
        assert time.monotonic() - started < AS_BEFORE_S, "nobody waits any more"
        assert_the_rest_goes_on(deployed, "after", AS_BEFORE_S)
    assert {answer.status for answer in answers} == {503}
    refused = [
        answer.message for answer in answers if "does not answer" in answer.message or "too many" in answer.message
    ]
    assert len(refused) >= DEPLOYED - Limits().calls
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
