"""The log fails, answers late, or writes and then says nothing: nothing is served, and nothing contradictory is ever logged."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

import pytest

from lib.oci.reference import Tag
from tests.e2e.images import make, push
from tests.e2e.service import Service
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.engines import Docker, Registry
    from tests.e2e.service import Answer

DEADLINE_S = 3  # the setting of `own_service`
SLACK_S = 3  # two busy cores
FAULTS = ("log:before", "log:after", "log:late", "index:before", "fulcio:before", "fulcio:hang", "metadata:before")


def assert_refused(answer: Answer, service: Service, reference: str) -> None:
    """503 with Retry-After, nothing served, and a line that says why."""
    assert answer.status == http.client.SERVICE_UNAVAILABLE
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.error["code"] == "UNAVAILABLE"
    for header in ("Docker-Content-Digest", "ETag", "Tlog-Logindex", "Tlog-First-Seen"):
        assert answer.headers[header] is None
    line = service.line(reference, "503")
    assert f"reason={answer.error['message']}" in line


@pytest.mark.parametrize("moves", [False, True], ids=["stays", "moves"])
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_served_until_the_log_works_again(
    docker_io: Registry, own_service: Service, fault: str, moves: bool
) -> None:
    service, name = own_service, f"faults/{fault.replace(':', '-')}-{moves}".lower()
    reference = f"{name}:v1"
    old = push(docker_io.url, name, "v1", make("first"))
    service.restart()  # no certificate in hand: every call to the outside is made
    service.fault(fault)
    try:
        started = time.monotonic()
        assert_refused(service.by_tag(reference), service, reference)
        assert time.monotonic() - started < DEADLINE_S + SLACK_S
        assert service.get(f"/sightings/{reference}").status == http.client.NOT_FOUND
        if moves:
            new = push(docker_io.url, name, "v1", make("moved"))
    finally:
        service.fault("")

    answer = service.by_tag(reference)
    if moves:
        assert answer.status == http.client.FORBIDDEN
        assert answer.error["message"] == f'tag "{reference}" mismatch; got "{new}", want "{old}"'
        push(docker_io.url, name, "v1", make("first"))
        answer = service.by_tag(reference)
    assert (answer.status, answer.digest) == (http.client.OK, old)
    assert len(digests_logged(service.dev, Tag.parse(reference))) == 1


def test_a_recorded_tag_does_not_need_the_log(docker_io: Registry, own_service: Service) -> None:
    service, reference = own_service, "faults/recorded:v1"
    old = push(docker_io.url, "faults/recorded", "v1", make("first"))
    assert service.by_tag(reference).status == http.client.OK
    service.fault("log:before,index:before,fulcio:before,metadata:before")
    try:
        assert service.by_tag(reference).digest == old
        with service.instance() as fresh:  # has nothing in memory
            assert fresh.by_tag(reference).digest == old
            push(docker_io.url, "faults/recorded", "v1", make("moved"))
            assert fresh.by_tag(reference).status == http.client.FORBIDDEN
    finally:
        service.fault("")


def test_docker_sees_a_refusal_and_the_log_says_why(docker_io: Registry, docker: Docker, own_service: Service) -> None:
    push(docker_io.url, "faults/docker", "v1", make("first"))
    own_service.fault("log:before")
    try:
        said = docker.pull(f"{own_service.host}/faults/docker:v1")
    finally:
        own_service.fault("")
    assert said.code == 1
    assert "received unexpected http status: 503" in said.err.lower()
    assert "reason=the transparency log answered the append with 500" in own_service.line("faults/docker:v1", "503")
    assert docker.pull(f"{own_service.host}/faults/docker:v1").code == 0


@pytest.mark.parametrize("fault", ["log:before", "log:after", "log:late"])
def test_the_setting_that_makes_the_log_fail_on_purpose(workshop: Path, docker_io: Registry, fault: str) -> None:
    push(docker_io.url, "faults/setting", "v1", make("first"))
    service = Service(
        workshop / f"setting-{fault.replace(':', '-')}",
        {"docker.io": docker_io.url},
        TLOGISTRY_DEADLINE="1",
        TLOGISTRY_DEV_FAULT=fault,
    )
    service.start()
    try:
        assert_refused(service.by_tag("faults/setting:v1"), service, "faults/setting:v1")
    finally:
        service.kill()


@pytest.mark.parametrize("lie", ["set:bad", "proof:bad"])
def test_an_entry_that_does_not_verify_is_never_used(docker_io: Registry, own_service: Service, lie: str) -> None:
    service, name = own_service, f"faults/{lie.replace(':', '-')}"
    old = push(docker_io.url, name, "v1", make("first"))
    service.fault(lie)
    try:
        assert_refused(service.by_tag(f"{name}:v1"), service, f"{name}:v1")
        assert service.line("orphan", "does not verify", f"{name}:v1")
    finally:
        service.fault("")
    answer = service.by_tag(f"{name}:v1")
    assert (answer.status, answer.digest) == (http.client.OK, old)
    assert len(digests_logged(service.dev, Tag.parse(f"{name}:v1"))) == 1
