"""Several registries that hang, and streams that nobody reads: the rest goes on."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore
from lib.oci.manifest import OCI_MANIFEST
from tests.fakes.registry import EndlessBody, FakeRegistry, Hang
from tests.framework import Function
from tests.handlers.test_http import World, manifest, path

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 48
HANGING = 4
DIGEST = "sha256:" + "0" * 64
AS_BEFORE_S = 5.0  # on two busy cores; a hanging request takes 10 s


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service with few threads, one registry that answers, and four names of one that will hang."""
    folder = tmp_path_factory.mktemp("crowded")
    with DevSigstore(folder) as dev, FakeRegistry() as registry, FakeRegistry() as hanging:
        upstreams = {"docker.io": registry.base_url}
        upstreams |= {f"hang{number}.example": hanging.base_url for number in range(HANGING)}
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps(upstreams),
        }
        registry.push("library/warm", "1.0", manifest(1), OCI_MANIFEST)
        with Function(settings, threads=THREADS) as function:
            made = World(registry, hanging, dev, function)
            assert made.get(path("warm")).status == 200
            yield made


def assert_the_rest_goes_on(world: World) -> None:
    for method, asked in (
        ("GET", "/livez"),
        ("GET", "/v2/"),
        ("HEAD", path("warm")),
        ("GET", path("warm")),
        ("GET", "/sightings/warm:1.0"),
    ):
        started = time.monotonic()
        assert world.function.ask(method, asked).status == 200, asked
        assert time.monotonic() - started < AS_BEFORE_S, asked


@pytest.mark.slow
def test_four_registries_that_hang_leave_the_health_check_and_warm_tags_as_before(crowded: World) -> None:
    """Each by itself may have 32 calls: more than there are threads."""
    crowded.other.fault("*", Hang())
    statuses: list[int] = []

    def ask(number: int) -> None:
        name = f"hang{number % HANGING}.example/a/b{number}"
        statuses.append(crowded.get(path(name)).status)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40 * HANGING)]
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 60
        while len(statuses) < 40 * HANGING - THREADS:  # what there is no room for is answered at once
            assert time.monotonic() < until
            time.sleep(0.05)
        assert_the_rest_goes_on(crowded)
    finally:
        for thread in threads:
            thread.join()
        crowded.other.heal()
    assert set(statuses) == {503}
    for number in range(HANGING):
        crowded.other.push(f"a/c{number}", "1.0", manifest(2), OCI_MANIFEST)
        assert crowded.get(path(f"hang{number}.example/a/c{number}")).status == 200, "all places were given back"


@pytest.mark.slow
def test_streams_that_nobody_reads_leave_the_health_check_and_warm_tags_as_before(crowded: World) -> None:
    """A client that stops reading holds a thread for as long as it likes."""
    crowded.other.fault("*/blobs/*", EndlessBody())
    sockets = []
    with ExitStack() as stack:
        for number in range(2 * THREADS):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", crowded.function.port), timeout=30))
            name = f"hang{number % HANGING}.example/a/b"
            sock.sendall(f"GET /v2/{name}/blobs/{DIGEST} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            sockets.append(sock)
        heads = [sock.recv(12) for sock in sockets]  # and not a byte more
        assert heads.count(b"HTTP/1.1 200") == THREADS // 2
        assert heads.count(b"HTTP/1.1 503") == len(heads) - THREADS // 2
        assert_the_rest_goes_on(crowded)
    crowded.other.heal()
    until = time.monotonic() + 60
    while crowded.get(path("hang0.example/a/d")).status != 404:
        assert time.monotonic() < until, "the places of streams whose clients left are not given back"
        time.sleep(0.1)
