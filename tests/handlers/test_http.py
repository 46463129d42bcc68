"""Every row of docs/request-handling.md, asked over HTTP of the function as it is deployed."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lib.devsigstore.server import DevSigstore
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from tests.fakes.registry import (
    CutShort,
    DigestHeader,
    DripBody,
    DripHead,
    Drop,
    EndlessBody,
    FakeRegistry,
    Hang,
    Html,
    Redirect,
    Status,
)
from tests.framework import Answer, Function
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.registry import Fault

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DEADLINE_S = 3.0
_numbers = iter(range(10**6))


def manifest(number: int) -> bytes:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": number, "digest": "sha256:" + "0" * 64}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": []}).encode()


class World:
    """A service, the registry that it knows as Docker Hub, another one, and its local Sigstore."""

    def __init__(self, registry: FakeRegistry, other: FakeRegistry, dev: DevSigstore, function: Function) -> None:
        self.registry, self.other, self.dev, self.function = registry, other, dev, function

    def push(self, name: str, number: int = 1) -> str:
        return self.registry.push(f"library/{name}", "1.0", manifest(number), OCI)

    def get(self, path: str, **headers: str) -> Answer:
        return self.function.ask("GET", path, headers=headers)

    def head(self, path: str) -> Answer:
        return self.function.ask("HEAD", path)

    def line(self, *words: str) -> bool:
        """Whether a log line with all these words comes within a second."""
        until = time.monotonic() + 1
        while time.monotonic() < until:
            if any(all(word in line for word in words) for line in self.function.lines):
                return True
            time.sleep(0.02)
        return False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with DevSigstore(folder) as dev, FakeRegistry(token_field="access_token") as registry, FakeRegistry() as other:
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_DEADLINE": str(DEADLINE_S),
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps(
                {
                    "docker.io": registry.base_url,
                    "tokens.example": registry.token_url.removesuffix("/token"),
                    "other.example": other.base_url,
                }
            ),
        }
        with Function(settings) as function:
            yield World(registry, other, dev, function)


@pytest.fixture
def name(world: World) -> str:
    """A repository of the test's own in library/."""
    world.registry.heal()
    world.dev.faults.set("")
    return f"app{next(_numbers)}"


def path(name: str, reference: str = "1.0") -> str:
    return f"/v2/{name}/manifests/{reference}"


# --- the road of a tag ------------------------------------------------------------------------------------------------


def test_first_sighting_then_same_then_moved(world: World, name: str) -> None:
    old = world.push(name)
    first = world.head(path(name))
    assert first.status == 200
    assert first.headers["tlog-first-seen"] == "true"
    again = world.get(path(name))
    assert again.status == 200
    assert "tlog-first-seen" not in again.headers
    for header in (
        "tlog-logindex",
        "tlog-uuid",
        "tlog-integratedtime",
        "docker-content-digest",
        "content-length",
        "etag",
    ):
        assert first.headers[header] == again.headers[header]
    assert first.headers["content-type"] == OCI
    assert first.headers["docker-content-digest"] == old
    assert int(first.headers["content-length"]) == len(again.body) == len(manifest(1))
    assert again.body == manifest(1)
    new = world.push(name, 2)
    for refused in (world.head(path(name)), world.get(path(name))):
        assert refused.status == 403
        assert refused.headers["tlog-uuid"] == first.headers["tlog-uuid"]
        assert int(refused.headers["content-length"]) > 0
    assert refused.code == "TAG_INVALID"
    assert refused.message == f'tag "{name}:1.0" mismatch; got "{new}", want "{old}"'
    assert json.loads(refused.body)["errors"][0]["detail"] == {
        "tag": f"docker.io/library/{name}:1.0",
        "recorded": old,
        "offered": new,
        "logIndex": int(first.headers["tlog-logindex"]),
        "uuid": first.headers["tlog-uuid"],
        "integratedTime": first.headers["tlog-integratedtime"],
        "pull": f"docker pull 127.0.0.1:{world.function.port}/{name}@{old}",
    }
    assert world.get(path(name, new)).body == manifest(2), "by digest the moved image still comes"
    assert world.line("moved", f"{name}:1.0", new, old)


@pytest.mark.parametrize(
    "spelling",
    [
        "library/{}", "docker.io/{}", "docker.io/library/{}", "index.docker.io/{}", "registry-1.docker.io/library/{}",
        "Docker.IO/{}", "docker.io:443/{}", "docker.io./{}", "docker.io.:443/library/{}",
    ],
)  # fmt: skip
def test_a_second_spelling_is_not_a_second_first_sighting(world: World, name: str, spelling: str) -> None:
    world.push(name)
    first = world.get(path(name))
    again = world.get(path(spelling.format(name)))
    assert again.status == 200
    assert "tlog-first-seen" not in again.headers
    assert again.headers["tlog-uuid"] == first.headers["tlog-uuid"]


def test_another_registry_is_another_tag(world: World, name: str) -> None:
    world.push(name)
    world.other.push(f"library/{name}", "1.0", manifest(7), OCI)
    assert "tlog-first-seen" in world.get(path(name)).headers
    assert "tlog-first-seen" in world.get(path(f"other.example/library/{name}")).headers


def test_a_recorded_tag_costs_the_upstream_one_head_and_the_log_nothing(world: World, name: str) -> None:
    world.push(name)
    world.get(path(name))
    calls = dict(world.dev.calls)
    world.registry.forget_requests()
    assert world.head(path(name)).status == 200
    assert world.get(path(name)).status == 200
    assert [seen.method for seen in world.registry.requests] == ["HEAD", "HEAD"]
    assert not world.registry.token_requests
    assert dict(world.dev.calls) == calls


def test_an_index_is_recorded_like_a_manifest(world: World, name: str) -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    digest = world.registry.push(f"library/{name}", "1.0", index, INDEX)
    answer = world.get(path(name))
    assert (answer.headers["content-type"], answer.headers["docker-content-digest"]) == (INDEX, digest)


def test_the_clients_accept_does_not_decide(world: World, name: str) -> None:
    world.push(name)
    accept = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    assert (
        world.get(path(name), Accept=accept).headers["docker-content-digest"]
        == world.get(path(name)).headers["docker-content-digest"]
    )


def test_nothing_of_the_clients_headers_reaches_the_upstream(world: World, name: str) -> None:
    world.push(name)
    answer = world.get(
        path(name),
        Authorization="Basic c2VjcmV0",
        Cookie="a=b",
        **{"Metadata-Flavor": "Google", "X-Forwarded-For": "1.2.3.4"},
    )
    assert answer.status == 200
    assert not world.registry.violations


def test_both_hundred_threads_agree(world: World, name: str) -> None:
    one, two = world.push(name), world.registry.push(f"library/{name}", "2.0", manifest(2), OCI)
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(world.get(path(name)))) for _ in range(24)]
    for number, thread in enumerate(threads):
        thread.start()
        world.registry.move(f"library/{name}", "1.0", (one, two)[number % 2])
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} <= {200, 403}
    assert len({answer.headers["docker-content-digest"] for answer in answers if answer.status == 200}) == 1
    assert len(digests_logged(world.dev.url, Tag.parse(f"{name}:1.0"))) == 1


# --- could not tell -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["log:before", "log:after", "log:late", "index:before"])
def test_a_log_that_fails_is_503_and_nothing_is_served(world: World, name: str, fault: str) -> None:
    old = world.push(name)
    world.dev.faults.set(fault)
    started = time.monotonic()
    for refused in (world.get(path(name)), world.head(path(name))):
        if fault == "log:after" and refused.status == 200:
            break  # only the answer was lost: the next request finds the entry in the log
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "docker-content-digest" not in refused.headers
    assert time.monotonic() - started < 2 * (DEADLINE_S + 1)
    assert world.line("could not tell", f"{name}:1.0", "reason=")
    world.dev.faults.set("")
    world.push(name, 2)
    moved = world.get(path(name))
    assert moved.status == 403, "what was claimed first is what is recorded"
    assert json.loads(moved.body)["errors"][0]["detail"]["recorded"] == old
    assert len(digests_logged(world.dev.url, Tag.parse(f"{name}:1.0"))) == 1


UPSTREAM_FAULTS: list[tuple[Fault, int, str]] = [
    (Status(404), 404, "MANIFEST_UNKNOWN"),
    (Status(403), 404, "NAME_UNKNOWN"),
    (Status(429, {"Retry-After": "7"}), 429, "TOOMANYREQUESTS"),
    (Status(500), 503, "UNAVAILABLE"),
    (Status(502, {"Content-Type": "text/html"}, b"<html>"), 503, "UNAVAILABLE"),
    (Status(418), 503, "UNAVAILABLE"),
    (Status(302), 503, "UNAVAILABLE"),
    (Html(), 503, "UNAVAILABLE"),
    (Drop(), 503, "UNAVAILABLE"),
    (CutShort(), 503, "UNAVAILABLE"),
    (EndlessBody(), 400, "MANIFEST_INVALID"),
    (Hang(), 503, "UNAVAILABLE"),
    (DripHead(), 503, "UNAVAILABLE"),
    (DripBody(), 503, "UNAVAILABLE"),
]


@pytest.mark.parametrize("recorded", [False, True], ids=["new", "recorded"])
@pytest.mark.parametrize(("fault", "status", "code"), UPSTREAM_FAULTS, ids=lambda value: repr(value)[:30])
def test_an_upstream_that_fails_is_never_a_mismatch_and_never_recorded(
    world: World, name: str, fault: Fault, status: int, code: str, *, recorded: bool
) -> None:
    world.push(name)
    if recorded:
        assert world.get(path(name)).status == 200
    appended = world.dev.calls["append"]
    world.registry.fault(f"/v2/library/{name}/manifests/*", fault)
    started = time.monotonic()
    answer = world.get(path(name))
    assert time.monotonic() - started < DEADLINE_S + 3
    if recorded and isinstance(fault, (CutShort, DripBody)):
        assert (answer.status, answer.body) == (200, manifest(1)), "HEAD confirmed the digest, and we hold the bytes"
        return
    assert (answer.status, answer.code) == (status, code)
    assert "tlog-uuid" not in answer.headers
    assert "www-authenticate" not in answer.headers
    assert b"<html" not in answer.body
    if status == 429:
        assert answer.headers["retry-after"] == "7"
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0
    assert world.head(path(name)).status == status
    assert world.dev.calls["append"] == appended
    world.registry.heal()
    if status == 404:  # what is not there is believed for some seconds
        while world.get(path(name)).status == 404:
            assert time.monotonic() - started < 30
            time.sleep(0.2)
    assert world.get(path(name)).status == 200


def test_a_lying_digest_header_is_only_a_hint_and_the_bytes_decide(world: World, name: str) -> None:
    old = world.push(name)
    assert world.get(path(name)).status == 200
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", DigestHeader("sha256:" + "1" * 64))
    assert world.get(path(name)).status == 200, "the bytes are the recorded ones"
    assert world.head(path(name)).headers["docker-content-digest"] == old
    assert world.line("digest header", name)
    world.registry.heal()
    world.push(name, 2)
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", DigestHeader(old), method="GET")
    assert world.get(path(name)).status == 403, "another body under the recorded digest's name"


def test_a_missing_digest_header_is_no_obstacle(world: World, name: str) -> None:
    world.push(name)
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", DigestHeader(None))
    assert [world.head(path(name)).status, world.head(path(name)).status, world.get(path(name)).status] == [200] * 3


@pytest.mark.parametrize("status", [403, 405])
def test_a_registry_that_refuses_head_is_asked_by_get(world: World, name: str, status: int) -> None:
    old = world.push(name)
    world.registry.fault(f"/v2/library/{name}/manifests/*", Status(status), method="HEAD")
    for _ in range(2):
        assert world.head(path(name)).headers["docker-content-digest"] == old


def test_redirects_are_followed_inside_and_a_loop_ends(world: World, name: str) -> None:
    world.push(name)
    target = f"/v2/library/{name}/manifests/target"
    world.registry.push(f"library/{name}", "target", manifest(1), OCI)
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", Redirect(target))
    assert world.get(path(name)).status == 200
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", Redirect(f"/v2/library/{name}/manifests/1.0"))
    assert world.get(path(name)).code == "UNAVAILABLE"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/computeMetadata/v1/",
        "https://169.254.169.254/",
        "http://127.0.0.1:1/",
        "https://localhost/",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_to_a_private_address_is_not_followed(world: World, name: str, location: str) -> None:
    """CVE-2026-2376."""
    world.push(name)
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", Redirect(location))
    assert world.get(path(name)).code == "UNAVAILABLE"


def test_eight_hanging_requests_starve_nobody(world: World, name: str) -> None:
    world.push(name)
    world.other.push("warm/app", "1.0", manifest(3), OCI)
    assert world.get("/v2/other.example/warm/app/manifests/1.0").status == 200
    world.registry.fault(f"/v2/library/{name}/*", Hang())
    threads = [threading.Thread(target=world.get, args=(path(name),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    for asked in ("/v2/", "/livez", "/v2/other.example/warm/app/manifests/1.0"):
        started = time.monotonic()
        assert world.get(asked).status == 200
        assert time.monotonic() - started < 2
    for thread in threads:
        thread.join()


# --- by digest, blobs ------------------------------------------------------------------------------------------------------


def test_by_digest_is_passed_through_and_never_recorded(world: World, name: str) -> None:
    digest = world.push(name)
    calls = dict(world.dev.calls)
    for answer in (world.get(path(name, digest)), world.get(path(name, digest.replace(":", "%3A")))):
        assert answer.body == manifest(1)
        assert answer.headers["docker-content-digest"] == digest
        assert "tlog-uuid" not in answer.headers
    assert int(world.head(path(name, digest)).headers["content-length"]) == len(manifest(1))
    assert dict(world.dev.calls) == calls


def test_by_digest_other_bytes_are_never_served(world: World, name: str) -> None:
    digest = world.push(name)
    other = world.push(f"{name}-other", 2)
    world.registry.fault(
        f"/v2/library/{name}/manifests/{digest}", Redirect(f"/v2/library/{name}-other/manifests/{other}")
    )
    assert world.get(path(name, digest)).code == "UNAVAILABLE"


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
def test_tags_that_move_by_design_are_neither_recorded_nor_blocked(world: World, name: str, suffix: str) -> None:
    tag = "sha256-" + "a" * 64 + suffix
    calls = dict(world.dev.calls)
    for number in (1, 2):
        world.registry.push(f"library/{name}", tag, manifest(number), OCI)
        answer = world.get(path(name, tag))
        assert answer.body == manifest(number)
        assert "tlog-uuid" not in answer.headers
    assert dict(world.dev.calls) == calls


def test_a_tag_that_only_looks_like_one_of_those_is_recorded(world: World, name: str) -> None:
    tag = "sha256-" + "a" * 64 + ".exe"
    world.registry.push(f"library/{name}", tag, manifest(1), OCI)
    assert "tlog-first-seen" in world.get(path(name, tag)).headers


def test_a_blob_is_streamed_with_ranges(world: World, name: str) -> None:
    content = bytes(range(256)) * 4000
    digest = world.registry.push_blob(f"library/{name}", content)
    whole = world.get(f"/v2/{name}/blobs/{digest}")
    assert whole.body == content
    assert whole.headers["docker-content-digest"] == digest
    part = world.get(f"/v2/{name}/blobs/{digest}", Range="bytes=10-19")
    assert (part.status, part.body) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    head = world.head(f"/v2/{name}/blobs/{digest}")
    assert (head.status, int(head.headers["content-length"]), head.body) == (200, len(content), b"")
    assert world.get(f"/v2/{name}/blobs/{digest}", Range=f"bytes={len(content)}-").status == 416


def test_a_blob_redirect_is_handed_out_as_an_absolute_url(world: World, name: str) -> None:
    digest = world.registry.push_blob(f"library/{name}", b"x")
    world.registry.fault(f"/v2/library/{name}/blobs/*", Redirect("/artifacts-downloads/x?sig=a%2Fb%3D"))
    answer = world.get(f"/v2/{name}/blobs/{digest}")
    assert answer.status == 307
    assert answer.headers["location"] == f"{world.registry.base_url}/artifacts-downloads/x?sig=a%2Fb%3D"
    assert answer.headers["content-length"] == "0"
    assert answer.headers["docker-content-digest"] == digest


def test_a_blob_redirect_to_a_private_address_is_not_handed_out(world: World, name: str) -> None:
    """CVE-2026-2376: a client may sit where we do not."""
    digest = world.registry.push_blob(f"library/{name}", b"x")
    world.registry.fault(f"/v2/library/{name}/blobs/*", Redirect("http://169.254.169.254/computeMetadata/v1/"))
    assert world.get(f"/v2/{name}/blobs/{digest}").code == "UNAVAILABLE"


def test_a_blob_that_is_not_there(world: World, name: str) -> None:
    assert world.get(f"/v2/{name}/blobs/{Digest.of(b'none')}").code == "BLOB_UNKNOWN"


def test_a_blob_that_breaks_off_never_looks_whole(world: World, name: str) -> None:
    content = b"x" * 300_000
    digest = world.registry.push_blob(f"library/{name}", content)
    world.registry.fault(f"/v2/library/{name}/blobs/*", CutShort())
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        world.get(f"/v2/{name}/blobs/{digest}")
    assert not any("Traceback" in line for line in world.function.lines)


# --- everything else -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["/v2/", "/v2"])
def test_ping(world: World, asked: str) -> None:
    answer = world.get(asked)
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert "www-authenticate" not in answer.headers


REFUSED: list[tuple[str, int, str]] = [
    ("/v2/UPPER/manifests/1", 400, "NAME_INVALID"),
    ("/v2/a..b/manifests/1", 400, "NAME_INVALID"),
    ("/v2/ghcr.io/UPPER/manifests/1", 400, "NAME_INVALID"),
    ("/v2/127.0.0.1/x/manifests/1", 400, "NAME_INVALID"),
    ("/v2/169.254.169.254/x/manifests/1", 400, "NAME_INVALID"),
    ("/v2/localhost/x/manifests/1", 400, "NAME_INVALID"),
    ("/v2/ghcr.io:8443/x/manifests/1", 400, "NAME_INVALID"),
    ("/v2/2130706433.0x7f/x/manifests/1", 400, "NAME_INVALID"),
    (f"/v2/{'a' * 300}/manifests/1", 400, "NAME_INVALID"),
    ("/v2/quay.io/alpine/manifests/1?ns=ghcr.io", 400, "NAME_INVALID"),
    ("/v2/alpine/manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"),
    (f"/v2/alpine/manifests/{'a' * 129}", 404, "MANIFEST_UNKNOWN"),
    ("/v2/alpine/manifests/sha256:totallywrong", 400, "DIGEST_INVALID"),
    ("/v2/alpine/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
    (f"/v2/alpine/manifests/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
    ("/v2/alpine/blobs/nodigest", 400, "DIGEST_INVALID"),
    ("/v2/library%2Falpine/manifests/1", 404, "NAME_UNKNOWN"),
    ("/v2//alpine/manifests/1", 404, "NAME_UNKNOWN"),
    ("//v2/alpine/manifests/1", 404, "NAME_UNKNOWN"),
    ("/v2/x/../alpine/manifests/1", 404, "NAME_UNKNOWN"),
    ("/v2/x/%2e%2e/alpine/manifests/1", 404, "NAME_UNKNOWN"),
    ("/v2/alpine/manifests/1%00", 404, "NAME_UNKNOWN"),
    ("/v2/alpine/manifests/1/", 404, "NAME_UNKNOWN"),
    ("/v2/alp%69ne/manifests/1", 404, "NAME_UNKNOWN"),
    ("/v2/alpine%0d%0aX:/manifests/1", 404, "NAME_UNKNOWN"),
    ("/v2/alpine\\x/manifests/1", 404, "NAME_UNKNOWN"),
    ("/v2/_catalog", 404, "NAME_UNKNOWN"),
    ("/v2/alpine/tags/list?n=x", 400, "UNSUPPORTED"),
    ("/v2/foo", 404, "NAME_UNKNOWN"),
    ("/", 404, "NAME_UNKNOWN"),
    ("/robots.txt", 404, "NAME_UNKNOWN"),
    ("/favicon.ico", 404, "NAME_UNKNOWN"),
    ("/healthz", 404, "NAME_UNKNOWN"),
    ("/sightings/alpine", 404, "MANIFEST_UNKNOWN"),
    ("/sightings/alpine:never", 404, "MANIFEST_UNKNOWN"),
]


@pytest.mark.parametrize(("asked", "status", "code"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_refused(world: World, asked: str, status: int, code: str) -> None:
    calls = dict(world.dev.calls)
    answer = world.get(asked)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = world.head(asked)
    assert (head.status, head.headers["content-length"], head.body) == (status, str(len(answer.body)), b"")
    assert dict(world.dev.calls) == calls


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "FOO"])
def test_writes_are_refused(world: World, method: str) -> None:
    answer = world.function.ask(
        method, "/v2/alpine/manifests/1?ns=GHCR.io", b"{}" if method in {"POST", "PUT"} else None
    )
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.headers["oci-namespace"] == "ghcr.io"
    assert world.function.ask(method, "/v2/alpine/manifests/1?ns=&ns=").status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_a_large_upload_is_refused_without_being_read(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.function.port), timeout=10) as sock:
        sock.sendall(
            b"PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: 419430400\r\n\r\n" + b"x" * 1000
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 405 ")


def test_a_small_body_on_a_get_is_ignored(world: World, name: str) -> None:
    world.push(name)
    answer = world.function.ask("GET", path(name), b"hello", {"Content-Type": "application/json"})
    assert (answer.status, answer.body) == (200, manifest(1))


def test_a_sighting_record_is_shown_with_its_evidence(world: World, name: str) -> None:
    assert world.get(f"/sightings/{name}:1.0").status == 404
    digest = world.push(name)
    assert world.get(f"/sightings/{name}:1.0").status == 404, "asking does not make a record"
    first = world.get(path(name))
    for spelling in (f"{name}:1.0", f"docker.io/library/{name}:1.0"):
        answer = world.get(f"/sightings/{spelling}")
        assert answer.headers["content-type"] == "application/json"
        shown: dict[str, Any] = json.loads(answer.body)
        assert shown["tag"] == f"docker.io/library/{name}:1.0"
        assert shown["digest"] == digest
        assert str(shown["logIndex"]) == first.headers["tlog-logindex"]
        assert shown["uuid"] == first.headers["tlog-uuid"]
        assert shown["integratedTime"] == first.headers["tlog-integratedtime"]
        assert shown["bundle"]["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert int(world.head(f"/sightings/{name}:1.0").headers["content-length"]) == len(answer.body)


def test_a_strange_host_header_does_not_get_into_the_command(world: World, name: str) -> None:
    world.push(name)
    world.get(path(name))
    world.push(name, 2)
    for host, shown in {'x";rm -rf /': "HOST", "tlogistry": "tlogistry:80", "a.example": "a.example"}.items():
        refused = world.get(path(name), Host=host)
        assert json.loads(refused.body)["errors"][0]["detail"]["pull"].startswith(f"docker pull {shown}/{name}@")


@pytest.mark.parametrize(
    "request_", [b"GET /v2/ HTTP/1.1\r\nHost: .", b"GET http://anything HTTP/1.1\r\nHost: x"], ids=["Host", "no path"]
)
def test_what_the_framework_would_answer_with_a_page_is_json_of_ours(world: World, request_: bytes) -> None:
    """Found by fuzzing: werkzeug's own 400 for a Host that is no name, and its redirect of a target without a path."""
    answer = world.function.raw(request_ + b"\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/json" in answer
    assert b"<html" not in answer.lower()
    assert b"nosniff" in answer


def test_absolute_form_is_understood(world: World) -> None:
    answer = world.function.raw(b"GET http://anything/v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
