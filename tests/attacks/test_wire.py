"""What strangers and upstreams could do to the HTTP of it: paths, headers, bodies, pages."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from lib.oci.digest import Digest
from tests.fakes.registry import Raw, Redirect, Status
from tests.handlers.test_http import manifest, path

if TYPE_CHECKING:
    from tests.fakes.registry import Fault
    from tests.handlers.test_http import World

DIGEST = Digest.of(b"x")
SCRIPT = "<script>alert(1)</script>"
CLIENTS_OWN = {
    "Metadata-Flavor": "Google",
    "X-aws-ec2-metadata-token": "x",
    "Authorization": "Bearer ya29.x",
    "Proxy-Authorization": "Basic x",
    "Cookie": "session=x",
    "X-Registry-Auth": "x",
    "X-Forwarded-For": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
    "X-Forwarded-Host": "evil.example",
    "Referer": "https://evil.example/",
    "Accept": "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "Accept-Encoding": "gzip",
    "If-None-Match": '"x"',
    "If-Modified-Since": "Tue, 24 Nov 2026 10:00:00 GMT",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
OURS = {"host", "user-agent", "via", "accept-encoding", "accept", "authorization"}


def test_no_header_of_a_client_reaches_an_upstream_or_its_token_service(world: World, name: str) -> None:
    """google/kf#1108: a metadata server answers whoever sends `Metadata-Flavor: Google`. Nor do credentials leak."""
    digest = world.push(name)
    blob = world.registry.push_blob(f"library/{name}", b"0123456789")
    world.registry.forget_requests()
    for asked in (path(name), path(name, digest), f"/v2/{name}/blobs/{blob}"):
        for method in ("HEAD", "GET"):
            answer = world.function.ask(method, asked, headers={**CLIENTS_OWN, "Range": "bytes=0-3"})
            assert answer.status in {200, 206}
    assert len(world.registry.token_requests) == 1
    for seen in (*world.registry.requests, *world.registry.token_requests):
        ranged = {"range"} if "/blobs/" in seen.path and seen.method == "GET" else set()
        assert seen.headers.keys() <= OURS | ranged
        assert not {*CLIENTS_OWN.values()} & {*seen.headers.values()}
        assert seen.headers["accept-encoding"] == "identity"
    assert not world.registry.violations


@pytest.mark.parametrize("header", ["SCRIPT_NAME: /v2", "SCRIPT_NAME: /x", "PATH_INFO: /x", "X-Forwarded-Proto: https"])
def test_a_peer_on_loopback_cannot_say_where_we_are(world: World, header: str) -> None:
    """By itself gunicorn believes such headers from 127.0.0.1, and answers 500 and HTML if they do not fit the path."""
    with socket.create_connection(("127.0.0.1", world.function.port), timeout=20) as connection:
        connection.sendall(f"GET /v2/ HTTP/1.1\r\nHost: a\r\n{header}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Docker-Distribution-Api-Version: registry/2.0" in answer


def asked_raw(world: World, *pieces: bytes) -> bytes:
    """All that comes back, for as long as the service takes what is sent."""
    with socket.create_connection(("127.0.0.1", world.function.port), timeout=20) as connection:
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        with suppress(ConnectionError):
            return b"".join(iter(lambda: connection.recv(4096), b""))
    return b""


def test_a_request_line_without_end_is_not_gathered(world: World) -> None:
    """8 MB of it were 6 s of work, and 12 MB of memory for each connection."""
    answer = asked_raw(world, b"GET /v2/", *[b"a" * 65_536] * 200)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 414 ")
    longest = b"GET /v2/" + b"a" * 250_000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert asked_raw(world, longest).startswith(b"HTTP/1.1 404 ")
    assert world.get("/livez").status == 200


TRAVERSALS = (
    "/v2/%2F%2F%2F..%2F..%2Fetc/passwd", "/v2/%2f%2f..%2f..%2fetc%2fpasswd/manifests/1", "/v2/..%2F..%2Fetc/manifests/1",
    "/v2/%2e%2e/%2e%2e/etc/manifests/1", "/v2/alpine/manifests/..%2F..%2F..%2Ftoken", "/v2/alpine/manifests/../../_catalog",
    "/v2/alpine/../debian/manifests/1", "/v2/alpine/./manifests/1", "/v2/alpine/manifests/%2e%2e", "/v2/..;/alpine/manifests/1",
    "/v2/alpine/manifests/1%2F..%2F2", "/v2/alpine/manifests/1/../2", "/v2/alpine/%252e%252e/manifests/1",
    "/v2/alpine%2fx/manifests/1", "/v2/alpine//manifests/1", "/v2/alpine/manifests//1", "/v2/alpine%5c..%5cx/manifests/1",
    "/v2/%61lpine/manifests/1", "/v2/alpine/manifests/1%3Fns=ghcr.io",
    "/v2/alpine/manifests/1%23", "/v2/alpine/manifests/1%00.png", "/v2/alpine/manifests/1%0a", "/v2/alpine/manifests/1%20",
    "/v2/alpine/blobs/..%2F..%2Ftoken", "/v2/alpine/blobs/sha256:%2e%2e", "/sightings/..%2F..%2Fetc%2Fpasswd",
    "/sightings/../v2/", "/%76%32/alpine/manifests/1", "/v2/b%C3%BCcher.example/x/manifests/1",
    "/v2/%E2%91%A0%E2%91%A5%E2%91%A8.254.169.254/x/manifests/1", "/v2/169%E3%80%82254%E3%80%82169%E3%80%82254/x/manifests/1",
)  # fmt: skip


@pytest.mark.parametrize("asked", TRAVERSALS)
def test_no_encoding_leads_out_of_a_repository(world: World, asked: str) -> None:
    """CVE-2024-4956: the upstream's URL is made of parsed parts, and a path that needs decoding is none."""
    upstream, calls = world.registry.count() + len(world.registry.token_requests), dict(world.dev.calls)
    answer = world.get(asked)
    assert answer.status in {400, 404}
    assert answer.code in {"NAME_INVALID", "NAME_UNKNOWN", "MANIFEST_UNKNOWN", "DIGEST_INVALID"}
    assert world.registry.count() + len(world.registry.token_requests) == upstream
    assert dict(world.dev.calls) == calls


SPLITS = (
    "https://cdn.example/x\r\n Set-Cookie: session=evil", "https://cdn.example/x\r\n\tSet-Cookie: session=evil",
    "https://cdn.example/x\rSet-Cookie: session=evil", "https://cdn.example/x\nSet-Cookie: session=evil",
    "https://cdn.example/x\r\nSet-Cookie: session=evil", "https://cdn.example/x\x00y", "https://cdn.example/x\x0bSet-Cookie: a",
    "https://cdn.example/x\x85Set-Cookie: a", "https://cdn.example/x Set-Cookie: a", "https://cdn.example/%0d%0aSet-Cookie:%20a",
    "https://cdn.example/x\x1c", "https://cdn.ex\r\n ample/", "\r\n https://cdn.example/x",
)  # fmt: skip


@pytest.mark.parametrize("location", SPLITS, ids=ascii)
def test_a_location_cannot_split_our_answer(world: World, name: str, location: str) -> None:
    """Response splitting: what is handed out is one visible line, and no header of it becomes ours."""
    head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    world.registry.fault(f"/v2/library/{name}/blobs/*", Raw(head.encode("latin-1")))
    request = f"GET /v2/{name}/blobs/{DIGEST} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    lines = world.function.raw(request.encode()).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0].split()[1] in {b"307", b"503"}
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    assert b"set-cookie" not in names
    for line in lines[1:]:
        if line.lower().startswith(b"location:"):
            assert re.fullmatch(rb"https://cdn\.example/[!-~]*", line.partition(b":")[2].strip())


@pytest.mark.parametrize("header", ["ETag", "Last-Modified", "Accept-Ranges", "Content-Range"])
def test_no_header_of_a_stream_can_split_our_answer(world: World, name: str, header: str) -> None:
    """Response splitting, in what is passed on beside a blob."""
    head = f"HTTP/1.1 206 X\r\n{header}: a\r\n X: b\r\n{header}: \x01\r\nSet-Cookie: a=b\r\nContent-Length: 1\r\n\r\nx"
    world.registry.fault(f"/v2/library/{name}/blobs/*", Raw(head.replace("206", "200").encode()))
    answer = world.get(f"/v2/{name}/blobs/{DIGEST}", Range="bytes=0-0")
    assert answer.status == 200
    assert not {"x", "set-cookie", header.lower()} & answer.headers.keys()


def test_a_body_is_not_the_next_request(world: World, name: str) -> None:
    """Request smuggling: what a client calls a body is one, however it looks."""
    world.push(name)
    smuggled = f"GET {path(name)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    before = world.registry.count()
    for framing in (
        f"Content-Length: {len(smuggled)}\r\n\r\n{smuggled}",
        f"Transfer-Encoding: chunked\r\n\r\n{len(smuggled):x}\r\n{smuggled}\r\n0\r\n\r\n",
        f"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        f"Content-Length: 0\r\nContent-Length: {len(smuggled)}\r\n\r\n{smuggled}",
    ):
        for method in ("GET", "PUT"):
            with socket.create_connection(("127.0.0.1", world.function.port), timeout=10) as sock:
                sock.sendall(f"{method} /v2/ HTTP/1.1\r\nHost: x\r\n{framing}".encode())
                sock.shutdown(socket.SHUT_WR)  # else the server would wait for more
                answers = b"".join(iter(lambda: sock.recv(65536), b""))
            assert answers.count(b"HTTP/1.1 ") == 1, framing
    assert world.registry.count() == before


INJECTIONS = (
    f"/v2/{SCRIPT}/manifests/1", "/v2/%3Cscript%3Ealert(1)%3C%2Fscript%3E/manifests/1", f"/v2/alpine/manifests/{SCRIPT}",
    "/v2/alpine/manifests/%3Cscript%3E", "/v2/alpine/blobs/%3Csvg%20onload=alert(1)%3E", f"/{SCRIPT}", f"/sightings/{SCRIPT}",
    "/sightings/%22%3E%3Cscript%3E:1", '/v2/alpine/manifests/"><img src=x>', "/v2/?x=<script>", "/robots.txt?<script>",
    "/v2/evil.example<script>/x/manifests/1", "/v2/alpine/manifests/1%0d%0a%0d%0a%3Cscript%3E", "/v2/javascript:alert(1)/x",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("asked", INJECTIONS)
def test_no_page_can_be_made_of_an_error(world: World, asked: str, method: str) -> None:
    """HTML and JavaScript through error messages: JSON only, not to be sniffed, and nothing of the request in it."""
    request = f"{method} {asked.replace(' ', '%20')} HTTP/1.1\r\nHost: {SCRIPT}\r\nConnection: close\r\n\r\n"
    head, _, body = world.function.raw(request.encode()).partition(b"\r\n\r\n")
    lines = {line.partition(b":")[0].strip().lower(): line.partition(b":")[2].strip() for line in head.split(b"\r\n")}
    assert lines[b"content-type"] == b"application/json"
    assert lines[b"x-content-type-options"] == b"nosniff"
    assert b"<" not in head + body


def test_every_kind_of_answer_forbids_sniffing_and_is_no_page(world: World, name: str) -> None:
    """HTML and JavaScript from an upstream: a blob has no type of its own, a manifest has one of four."""
    page = f"<html>{SCRIPT}</html>".encode()
    digest, blob = world.push(name), world.registry.push_blob(f"library/{name}", page)
    world.registry.push(f"library/{name}", "moved", manifest(1), "application/vnd.oci.image.manifest.v1+json")
    world.get(path(name, "moved"))
    world.registry.push(f"library/{name}", "moved", manifest(2), "application/vnd.oci.image.manifest.v1+json")
    faults: dict[str, Fault] = {
        "down": Status(500, {"Content-Type": "text/html"}, page),
        "busy": Status(429, {"Content-Type": "text/html"}, page),
        "page": Status(200, {"Content-Type": "text/html"}, page),
        "away": Redirect("https://cdn.example/x"),
    }
    for tag, fault in faults.items():
        world.registry.fault(f"/v2/library/{name}/manifests/{tag}", fault)
    world.registry.fault(f"/v2/library/{name}/blobs/{DIGEST}", Redirect(f"https://cdn.example/{SCRIPT}"))
    blobs = [f"/v2/{name}/blobs/{blob}", f"/v2/{name}/blobs/{DIGEST}", f"/v2/{name}/blobs/{Digest.of(b'none')}"]
    manifests = [path(name, reference) for reference in ("1.0", digest, "moved", *faults)]
    others = ["/v2/", "/livez", "/", "/robots.txt", "/favicon.ico", f"/sightings/{name}:1.0", "/v2/_catalog?n=1000000"]
    statuses = set()
    for asked in (*blobs, *manifests, *others):
        for method in ("GET", "HEAD", "PUT"):
            answer = world.function.ask(method, asked)
            statuses.add(answer.status)
            assert answer.headers["x-content-type-options"] == "nosniff"
            kind = (
                r"application/(json|octet-stream|vnd\.[a-z0-9.+-]+)"
                if asked != "/livez"
                else "text/plain|application/json"
            )
            assert re.fullmatch(kind, answer.headers["content-type"])
            if asked != blobs[0]:
                assert b"<" not in answer.body
    assert statuses == {200, 307, 403, 404, 405, 429, 503}
