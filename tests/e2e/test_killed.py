"""An instance is killed between its promise and its signature: what was promised is what is signed."""

from __future__ import annotations

import http.client
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from lib.oci.reference import Tag
from tests.e2e.images import make, push
from tests.e2e.processes import wait_until
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from tests.e2e.engines import Registry
    from tests.e2e.service import Instance, Service

KILLED_WHILE = {"fulcio:hang": "certificate", "log:late": "append"}  # fault -> the call under way


def ask_and_wait(service: Service, instance: Instance, reference: str, call: str) -> threading.Thread:
    """A request in a thread, and wait until it has got as far as `call`."""

    def ask() -> None:
        with suppress(OSError, http.client.HTTPException):  # the connection dies with the process
            instance.by_tag(reference)

    before = service.calls().get(call, 0)
    thread = threading.Thread(target=ask)
    thread.start()
    assert wait_until(lambda: service.calls().get(call, 0) > before, 20)
    return thread


def assert_promised(service: Service, reference: str, digest: str) -> None:
    """In the store: the promise, and no record."""
    tag = str(Tag.parse(reference))
    assert service.query("SELECT digest FROM claim WHERE tag = ?", tag) == [(digest,)]
    assert service.query("SELECT 1 FROM sighting WHERE tag = ?", tag) == []


def assert_kept(service: Service, registry: Registry, name: str, old: str, new: str) -> None:
    """The promised digest is completed although the upstream serves another one, which is then refused with evidence."""
    reference = f"{name}:v1"
    refused = service.by_tag(reference)
    assert refused.status == http.client.FORBIDDEN, refused.body
    assert refused.error["message"] == f'tag "{reference}" mismatch; got "{new}", want "{old}"'
    record = service.get(f"/sightings/{reference}").json()
    assert record["digest"] == old
    assert record["logIndex"] == refused.error["detail"]["logIndex"]
    assert len(digests_logged(service.dev, Tag.parse(reference))) == 1

    push(registry.url, name, "v1", make("first"))
    back = service.by_tag(reference)
    assert (back.status, back.digest) == (http.client.OK, old)
    assert back.headers["Tlog-First-Seen"] is None


@pytest.mark.parametrize("fault", KILLED_WHILE)
def test_the_next_start_completes_what_was_promised(docker_io: Registry, own_service: Service, fault: str) -> None:
    service, name = own_service, f"killed/start-{fault.replace(':', '-')}"
    old = push(docker_io.url, name, "v1", make("first"))
    service.restart()
    service.fault(fault)
    asking = ask_and_wait(service, service, f"{name}:v1", KILLED_WHILE[fault])
    service.kill()
    asking.join()

    assert_promised(service, f"{name}:v1", old)
    new = push(docker_io.url, name, "v1", make("moved"))
    service.start()
    assert_kept(service, docker_io, name, old, new)


@pytest.mark.parametrize("fault", KILLED_WHILE)
def test_another_instance_completes_what_was_promised(docker_io: Registry, own_service: Service, fault: str) -> None:
    service, name = own_service, f"killed/other-{fault.replace(':', '-')}"
    old = push(docker_io.url, name, "v1", make("first"))
    try:
        with service.instance() as doomed:
            service.fault(fault)
            asking = ask_and_wait(service, doomed, f"{name}:v1", KILLED_WHILE[fault])
            doomed.kill()
            asking.join()
    finally:
        service.fault("")

    assert_promised(service, f"{name}:v1", old)
    new = push(docker_io.url, name, "v1", make("moved"))
    assert_kept(service, docker_io, name, old, new)
