"""Several registries that hang, a slow log, and answers that nobody reads: the rest goes on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lib.crowd import STALL_S, Crowd
from lib.devsigstore.server import DevSigstore
from lib.errors import LogUnavailable, Overloaded
from lib.handlers.visit import AT_ONCE, visiting
from lib.oci.manifest import MAX_BYTES, OCI_MANIFEST
from lib.upstream.limits import Limits
from tests.clock import Clock
from tests.fakes.registry import EndlessBody, FakeRegistry, Hang, Held
from tests.framework import Function
from tests.handlers.test_http import World, manifest, path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib.handlers.response import Response
    from lib.handlers.visit import Aside
    from tests.framework import Answer

THREADS = 48
SHARE = THREADS // 2 * 4 // 5  # of streams, for one domain and one client
HANGING = 4
DIGEST = "sha256:" + "0" * 64
SEVERAL = [f"198.51.100.{number}" for number in range(32)]  # clients
WINDOW, SEGMENT = (
    4096,
    536,
)  # bytes; so small, they make the kernel's buffer on our side as small as it gets, on loopback, too
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
            "TLOGISTRY_FORWARDED_HOPS": "1",
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


def ask_and_not_read(stack: ExitStack, world: World, asked: str, client: str) -> socket.socket:
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", world.function.port))
    sock.sendall(f"GET {asked} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n".encode())
    return sock


def statuses(sockets: list[socket.socket]) -> Counter[int]:
    """The first bytes of every answer, and not a byte more."""
    return Counter(int(sock.recv(12).removeprefix(b"HTTP/1.1 ")) for sock in sockets)


def assert_comes_again(world: World, asked: str, status: int) -> None:
    until = time.monotonic() + 60
    while world.get(asked).status != status:
        assert time.monotonic() < until, "the places of those whose clients left are not given back"
        time.sleep(0.1)


@pytest.mark.slow
def test_streams_that_nobody_reads_leave_the_health_check_and_warm_tags_as_before(crowded: World) -> None:
    """A client that stops reading holds a thread for as long as it likes."""
    crowded.other.fault("*/blobs/*", EndlessBody())
    with ExitStack() as stack:
        sockets = []
        for number in range(2 * THREADS):
            asked = f"/v2/hang{number % HANGING}.example/a/b/blobs/{DIGEST}"
            sockets.append(ask_and_not_read(stack, crowded, asked, SEVERAL[number % len(SEVERAL)]))
        assert statuses(sockets) == {200: THREADS // 2, 503: 2 * THREADS - THREADS // 2}
        assert_the_rest_goes_on(crowded)
    crowded.other.heal()
    assert_comes_again(crowded, path("hang0.example/a/d"), 404)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("domains", "clients", "served", "message"),
    [(1, len(SEVERAL), SHARE, "of hang0.example"), (HANGING, 1, SHARE, "this client's address")],
    ids=["of one domain", "to one client"],
)
def test_streams_that_nobody_reads_leave_other_clients_the_blobs_of_other_registries(
    crowded: World, domains: int, clients: int, served: int, message: str
) -> None:
    crowded.other.fault("*/a/b/blobs/*", EndlessBody())
    blob = crowded.registry.push_blob("library/warm", b"blob")
    with ExitStack() as stack:
        sockets = []
        for number in range(30):
            asked = f"/v2/hang{number % domains}.example/a/b/blobs/{DIGEST}"
            sockets.append(ask_and_not_read(stack, crowded, asked, SEVERAL[number % clients]))
        assert statuses(sockets) == {200: served, 503: 30 - served}
        refused = crowded.get(f"/v2/hang0.example/a/b/blobs/{DIGEST}", **{"X-Forwarded-For": SEVERAL[0]})
        assert message in refused.message
        assert int(refused.headers["retry-after"]) > 0
        assert crowded.get(f"/v2/warm/blobs/{blob}", **{"X-Forwarded-For": "192.0.2.9"}).body == b"blob"
        assert_the_rest_goes_on(crowded)
    crowded.other.heal()
    blob = crowded.other.push_blob("a/c", b"of another")
    assert_comes_again(crowded, f"/v2/hang0.example/a/c/blobs/{blob}", 200)


@pytest.mark.slow
def test_large_manifests_that_nobody_reads_leave_the_health_check_and_warm_tags_as_before(crowded: World) -> None:
    """Of a body that is larger than the kernel takes at once, each holds a thread for as long as its client likes."""
    large = manifest(1) + b" " * (MAX_BYTES - len(manifest(1)))
    digest = crowded.other.push("a/large", "1.0", large, OCI_MANIFEST)
    asked = f"/v2/hang0.example/a/large/manifests/{digest}"
    assert crowded.get(asked).body == large
    with ExitStack() as stack:
        sockets = [ask_and_not_read(stack, crowded, asked, SEVERAL[n % len(SEVERAL)]) for n in range(THREADS + 4)]
        assert statuses(sockets) == {200: SHARE, 503: THREADS + 4 - SHARE}
        assert_the_rest_goes_on(crowded)
        head = crowded.head(asked)
        assert (head.status, head.headers["content-length"]) == (200, str(MAX_BYTES)), "which sends nothing"
        assert crowded.get(path("hang1.example/a/large", digest)).body == large
    assert_comes_again(crowded, asked, 200)


@pytest.mark.slow
def test_a_body_of_what_the_kernel_takes_at_once_holds_no_thread_of_one_who_does_not_read(crowded: World) -> None:
    """So it needs no place: those who ask for such bodies are as many as there are threads."""
    small = manifest(1) + b" " * (AT_ONCE - len(manifest(1)))
    digest = crowded.other.push("a/small", "1.0", small, OCI_MANIFEST)
    asked = f"/v2/hang0.example/a/small/manifests/{digest}"
    assert crowded.get(asked).body == small
    with ExitStack() as stack:
        sockets = []
        for _ in range(THREADS + 4):
            sockets.append(ask_and_not_read(stack, crowded, asked, SEVERAL[0]))
            assert statuses(sockets[-1:]) == {200: 1}
        assert_the_rest_goes_on(crowded)


@pytest.mark.slow
def test_a_log_that_does_not_answer_leaves_the_recorded_tags_of_the_same_registry_as_before(crowded: World) -> None:
    """The registry answers in milliseconds, and is not blamed: so many first sightings wait for the log."""
    new = [f"new{number}" for number in range(THREADS * 5 // 8)]
    for name in new:
        crowded.push(name)
    crowded.dev.faults.set("log:late")
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda name=name: answers.append(crowded.get(path(name)))) for name in new]
    try:
        for thread in threads:
            thread.start()
        time.sleep(STALL_S + 1.5)
        assert answers == [], "all of them wait for the log"
        assert_the_rest_goes_on(crowded)
        assert crowded.get(path("hang0.example/a/nothing")).status == 404, "and so do registries that are asked first"
    finally:
        crowded.dev.faults.set("")
        for thread in threads:
            thread.join()
    assert {answer.status for answer in answers} == {200}


@pytest.mark.slow
def test_a_burst_on_one_mapped_registry_that_answers_is_served_whole(crowded: World) -> None:
    """Places are kept for it: one that is not mapped may have 18 of these threads."""
    assert crowded.get(path("hang0.example/a/nothing")).status == 404
    for number in range(40):
        crowded.other.push(f"a/burst{number}", "sha256-" + "0" * 64, manifest(2), OCI_MANIFEST)  # which is not recorded
    go = threading.Event()
    crowded.other.fault("*/burst*", Held(go))
    got: list[int] = []
    asked = [path(f"hang0.example/a/burst{number}", "sha256-" + "0" * 64) for number in range(40)]
    threads = [threading.Thread(target=lambda asked=asked: got.append(crowded.get(asked).status)) for asked in asked]
    for thread in threads:
        thread.start()
    until = time.monotonic() + STALL_S / 2
    while crowded.other.count(pattern="*burst*") < Limits().calls and time.monotonic() < until:
        time.sleep(0.02)
    go.set()
    for thread in threads:
        thread.join()
    crowded.other.heal()
    assert got == [200] * 40


def test_a_registry_that_answered_is_known_for_it_while_the_log_is_waited_for() -> None:
    crowd = Crowd(128, Clock().now)

    def answer(aside: Aside) -> Response:
        with aside():
            for _ in range(128 * 3 // 8):  # all that strangers may have
                crowd.enter("strange.example")
            with pytest.raises(Overloaded):
                crowd.enter("stranger.example")
            crowd.enter("new.example")
        raise LogUnavailable(path("late"))

    with pytest.raises(LogUnavailable):
        visiting(crowd.enter("new.example"), answer, was_answered=lambda: True, sends_to=None)
