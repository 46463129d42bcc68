"""The store is lost, the log is not: the old digest comes back out of the log, and the moved tag is still blocked."""

from __future__ import annotations

import http.client
import sys
from typing import TYPE_CHECKING

import pytest

from lib.oci.reference import Tag
from tests.e2e.images import make, push
from tests.e2e.processes import environment, run
from tests.e2e.service import ROOT
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from tests.e2e.engines import Registry
    from tests.e2e.service import Service


def test_while_the_service_is_stopped(docker_io: Registry, own_service: Service) -> None:
    service = own_service
    for name in ("lost/moved", "lost/stays"):
        push(docker_io.url, name, "v1", make("first"))
        assert service.by_tag(f"{name}:v1").headers["Tlog-First-Seen"] == "true"
    before = {name: service.get(f"/sightings/{name}:v1").json() for name in ("lost/moved", "lost/stays")}
    new = push(docker_io.url, "lost/moved", "v1", make("moved"))

    service.stop()
    service.lose_store()
    service.start()

    refused = service.by_tag("lost/moved:v1")
    assert refused.status == http.client.FORBIDDEN
    old = before["lost/moved"]["digest"]
    assert refused.error["message"] == f'tag "lost/moved:v1" mismatch; got "{new}", want "{old}"'
    stays = service.by_tag("lost/stays:v1")
    assert (stays.status, stays.digest) == (http.client.OK, before["lost/stays"]["digest"])
    assert stays.headers["Tlog-First-Seen"] is None
    for name, known in before.items():
        found = service.get(f"/sightings/{name}:v1").json()
        for member in ("tag", "digest", "logIndex", "uuid", "integratedTime"):
            assert found[member] == known[member]
        assert len(digests_logged(service.dev, Tag.parse(f"{name}:v1"))) == 1


def test_while_the_service_is_running(docker_io: Registry, own_service: Service) -> None:
    service = own_service
    old = push(docker_io.url, "lost/running", "v1", make("first"))
    service.by_tag("lost/running:v1")
    new = push(docker_io.url, "lost/running", "v1", make("moved"))
    words = f'tag "lost/running:v1" mismatch; got "{new}", want "{old}"'

    service.lose_store()

    assert service.by_tag("lost/running:v1").error["message"] == words  # from memory
    with service.instance() as fresh:  # has nothing in memory: out of the log
        assert fresh.by_tag("lost/running:v1").error["message"] == words
    push(docker_io.url, "lost/after", "v1", make("after"))
    assert service.by_tag("lost/after:v1").headers["Tlog-First-Seen"] == "true"
    service.restart()
    assert service.by_tag("lost/running:v1").error["message"] == words
    assert service.by_tag("lost/after:v1").headers["Tlog-First-Seen"] is None


def adopt(service: Service, reference: str, digest: str) -> int:
    """The operator's command."""
    settings = {**service.env, "TLOGISTRY_STORE": f"sqlite:{service.store}"}
    said = run([sys.executable, "-m", "lib", "adopt", reference, digest], environment(**settings, PYTHONPATH=str(ROOT)))
    return said.code


def test_an_entry_that_nothing_explains_is_named_and_never_passed_over(
    docker_io: Registry, own_service: Service
) -> None:
    service, reference = own_service, "lost/unexplained:v1"
    old = push(docker_io.url, "lost/unexplained", "v1", make("first"))
    service.fault("copy:before")  # the log will not say which digest the entry is about
    try:
        first = service.by_tag(reference)
    finally:
        service.fault("")
    assert first.headers["Tlog-First-Seen"] == "true"
    new = push(docker_io.url, "lost/unexplained", "v1", make("moved"))
    service.stop()
    service.lose_store()
    service.start()

    refused = service.by_tag(reference)
    assert refused.status == http.client.SERVICE_UNAVAILABLE
    assert f"log index {first.headers['Tlog-Logindex']}" in refused.error["message"]
    assert first.headers["Tlog-Uuid"] in service.line(reference, "503")

    assert adopt(service, reference, new) != 0  # no entry proves it
    assert service.by_tag(reference).status == http.client.SERVICE_UNAVAILABLE
    assert adopt(service, reference, old) == 0
    blocked = service.by_tag(reference)
    assert blocked.status == http.client.FORBIDDEN
    assert blocked.error["message"] == f'tag "{reference}" mismatch; got "{new}", want "{old}"'
    assert len(digests_logged(service.dev, Tag.parse(reference))) == 1


@pytest.mark.parametrize("fault", ["index:before", "retrieve:missing"])
def test_a_log_that_cannot_be_searched_is_not_a_first_sighting(
    docker_io: Registry, own_service: Service, fault: str
) -> None:
    service, name = own_service, f"lost/{fault.replace(':', '-')}"
    old = push(docker_io.url, name, "v1", make("first"))
    service.by_tag(f"{name}:v1")
    push(docker_io.url, name, "v1", make("moved"))
    service.stop()
    service.lose_store()
    service.start()
    service.fault(fault)
    try:
        assert service.by_tag(f"{name}:v1").status == http.client.SERVICE_UNAVAILABLE
    finally:
        service.fault("")
    blocked = service.by_tag(f"{name}:v1")
    assert blocked.status == http.client.FORBIDDEN
    assert f'want "{old}"' in blocked.error["message"]
