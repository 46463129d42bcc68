"""Everything malformed that can be sent, on every endpoint that takes it: the spec's code as OCI JSON, and nothing else.

Nothing is recorded, no upstream is asked, no log is touched, and no traceback is printed. GET and HEAD are answered alike.
The table is docs/request-handling.md's, "Errors".
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore
from tests.fakes.registry import FakeRegistry, image
from tests.framework import Answer, Function
from tests.handlers.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OCI = "application/vnd.oci.image.manifest.v1+json"
HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"

NAME_INVALID = (400, "NAME_INVALID")
DIGEST_INVALID = (400, "DIGEST_INVALID")
UNSUPPORTED = (400, "UNSUPPORTED")
MANIFEST_UNKNOWN = (404, "MANIFEST_UNKNOWN")
NAME_UNKNOWN = (404, "NAME_UNKNOWN")


@dataclass(frozen=True)
class Row:
    """A target as it is sent, what it gets, and the OCI-Namespace that comes with it."""

    target: str
    status: int
    code: str
    namespace: str | None = None

    def __str__(self) -> str:
        return ascii(self.target[:70])


ENDPOINTS = (
    "/v2/{}/manifests/1.0",
    f"/v2/{{}}/manifests/{DIGEST}",
    f"/v2/{{}}/blobs/{DIGEST}",
    "/v2/{}/tags/list",
    f"/v2/{{}}/referrers/{DIGEST}",
)
EVIDENCE = "/sightings/{}:1.0"

# --- names --------------------------------------------------------------------------------------------------------------

#   <name> ::= [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
BAD_PATHS = (
    "UPPER", "app/UPPER", "aPp", "a..b", "a___b", "a._b", "a-_b", ".a", "_a", "-a", "a.", "a_", "a-", "a/.b", "a/-b",
    "a/b_", "a@b", "a~b", "a:b", "app/a:b", "_catalog", "a" * 256, "a/" * 127 + "aa",
)  # fmt: skip
BAD_HOSTS = (
    "gh_cr.io", "-ghcr.io", "ghcr-.io", "ghcr..io", ".ghcr.io", "ghcr.io..", "a" * 64 + ".io", "user@ghcr.io",
    "user:pass@ghcr.io", "ghcr.io:", "ghcr.io:0", "ghcr.io:08", "ghcr.io:65536", "ghcr.io:1:2", "ghcr.io:https",
    ":5000", "~.io", "127.1", "1.2.3", "256.1.1.1", "1.2.3.4.5", "0x7f.1", "0177.0.0.01", "2130706433.0x7f",
    "127.0.0.0x1",
)  # fmt: skip
# A well-formed host that is no public registry: the guard's answer, and the client's mistake, too.
PRIVATE_HOSTS = (
    "localhost", "localhost:5000", "127.0.0.1", "127.0.0.1:5000", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255", "8.8.8.8",
    "ghcr.io:8443", "ghcr.io:80",
)  # fmt: skip


def _names() -> Iterator[Row]:
    for endpoint in (*ENDPOINTS, EVIDENCE):
        for path in BAD_PATHS:
            yield Row(endpoint.format(path), *NAME_INVALID)
            yield Row(endpoint.format(f"other.example/{path}"), *NAME_INVALID)
        for path in ("UPPER", "a..b", "a" * 256):
            yield Row(endpoint.format(f"r/other.example/{path}"), *NAME_INVALID)
            yield Row(endpoint.format(path) + "?ns=other.example", *NAME_INVALID, "other.example")
        for host in BAD_HOSTS:
            yield Row(endpoint.format(f"{host}/app"), *NAME_INVALID)
    for endpoint in ENDPOINTS:
        for host in PRIVATE_HOSTS:
            yield Row(endpoint.format(f"{host}/app"), *NAME_INVALID)
        for host in ("localhost", "169.254.169.254", "ghcr.io:8443", "127.1"):
            yield Row(endpoint.format(f"r/{host}/app"), *NAME_INVALID)


# --- ns -----------------------------------------------------------------------------------------------------------------

BAD_NAMESPACES = (
    "ns=", "ns", "ns=nodot", "ns=UPPER_CASE.io", "ns=gh_cr.io", "ns=-ghcr.io", "ns=ghcr..io", "ns=.", "ns=..", "ns=/",
    "ns=ghcr.io/", "ns=ghcr.io/app", "ns=https://ghcr.io", "ns=//ghcr.io", "ns=user@ghcr.io", "ns=*.example.com",
    "ns=*", "ns=ghcr.io,quay.io", "ns=ghcr.io%20", "ns=+ghcr.io", "ns=ghcr.io%00", "ns=%00", "ns=ghcr.io%0d%0aX:1",
    "ns=ghcr%C2%ADio.example", "ns=b%C3%BCcher.example", "ns=%E2%91%A0.example", "ns=ghcr.io:", "ns=ghcr.io:0",
    "ns=ghcr.io:65536", "ns=ghcr.io:%2B443", "ns=:5000", "ns=127.1", "ns=0x7f.1", "ns=[::1]", "ns=[::1]:5000", "ns=::1",
    "ns=fe80::1%25eth0", "ns=" + "a." * 200 + "io", "ns=ghcr.io&ns=ghcr.io", "ns=ghcr.io&ns=quay.io", "ns=ghcr.io&ns=",
    "NS=ghcr.io", "Ns=ghcr.io", "%4e%53=ghcr.io", "+ns=ghcr.io", "ns%20=ghcr.io", "ns%09=ghcr.io",
)  # fmt: skip
PRIVATE_NAMESPACES = (
    "localhost",
    "localhost:5000",
    "127.0.0.1",
    "169.254.169.254",
    "10.0.0.1:5000",
    "8.8.8.8",
    "ghcr.io:8443",
)
OTHER_PLACES = ("/v2/", "/v2", "/sightings/app:1.0")
CONTRADICTIONS = (  # a path that names another registry than ns does
    ("ghcr.io/app", "quay.io"),
    ("docker.io/library/app", "ghcr.io"),
    ("registry-1.docker.io/app", "ghcr.io"),
    ("ghcr.io/app", "docker.io"),
    ("r/ghcr.io/app", "quay.io"),
    ("ghcr.io:5000/app", "ghcr.io"),
    ("ghcr.io/app", "ghcr.io:5000"),
    ("localhost/app", "ghcr.io"),
)


def _namespaces() -> Iterator[Row]:
    for place in (*(endpoint.format("app") for endpoint in ENDPOINTS), *OTHER_PLACES):
        for query in BAD_NAMESPACES:
            yield Row(f"{place}?{query}", *NAME_INVALID)
    for endpoint in ENDPOINTS:
        for namespace in PRIVATE_NAMESPACES:
            yield Row(endpoint.format("app") + f"?ns={namespace}", *NAME_INVALID, namespace)
        for name, namespace in CONTRADICTIONS:
            yield Row(endpoint.format(name) + f"?ns={namespace}", *NAME_INVALID, namespace)
    for name, namespace in CONTRADICTIONS:
        yield Row(EVIDENCE.format(name) + f"?ns={namespace}", *NAME_INVALID, namespace)


# --- digests and tags ---------------------------------------------------------------------------------------------------

BAD_DIGESTS = (
    "sha256:totallywrong", "sha256:baddigeststring", "sha256:", ":", f":{HEX}", f"sha256::{HEX}", f"sha256:{HEX[:-1]}",
    f"{DIGEST}0", f"sha256:{HEX.upper()}", f"SHA256:{HEX}", f"sha256:{HEX[:-1]}g", f"sha512:{HEX}",
    f"sha256:{HEX}{HEX}", f"sha384:{HEX}{HEX[:32]}", "md5:d41d8cd98f00b204e9800998ecf8427e", f"blake3:{HEX}",
    f"{DIGEST}@{DIGEST}", f"1.0@{DIGEST}", f"sha256:{'a' * 3000}",
)  # fmt: skip
NO_DIGESTS = ("latest", "uploads", f"sha256-{HEX}", HEX, "sha256", "sha256." + HEX)
#   <reference> as a tag ::= [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
BAD_TAGS = (".INVALID_MANIFEST_NAME", ".a", "-a", "...", "-", "~", "a~b", "a@b", "@", "a" * 129, "a" * 3000)
PREFIXES = ("app", "other.example/app", "r/other.example/app")


def _references() -> Iterator[Row]:
    for name in PREFIXES:
        for digest in BAD_DIGESTS:
            for kind in ("manifests", "blobs", "referrers"):
                yield Row(f"/v2/{name}/{kind}/{digest}", *DIGEST_INVALID)
        for other in NO_DIGESTS:
            for kind in ("blobs", "referrers"):
                yield Row(f"/v2/{name}/{kind}/{other}", *DIGEST_INVALID)
        for tag in BAD_TAGS:
            yield Row(f"/v2/{name}/manifests/{tag}", *MANIFEST_UNKNOWN)
        for tag in ("", ":", ":.a", ":-a", ":a~b", ":" + "a" * 129):
            yield Row(f"/sightings/{name}{tag}", *MANIFEST_UNKNOWN)
    for kind in ("manifests", "blobs", "referrers"):
        yield Row(f"/v2/app/{kind}/sha256:totallywrong?ns=other.example", *DIGEST_INVALID, "other.example")
    yield Row("/v2/app/manifests/.a?ns=other.example", *MANIFEST_UNKNOWN, "other.example")
    yield Row(f"/sightings/app@{DIGEST}", *NAME_INVALID)  # there is no tag in it, but a name that is none


# --- parameters ---------------------------------------------------------------------------------------------------------

BAD_N = (
    "n=", "n", "n=-1", "n=%2B1", "n=+1", "n=1+", "n=1.0", "n=1e3", "n=0x10", "n=01", "n=00", "n=1_000", "n=1,000",
    "n=ten", "n=null", "n=-0", "n=%00", "n=1%00", "n=1%0a", "n=%EF%BC%91", "n=%D9%A1", "n=%20", "n=1&n=1", "n=1&n=2",
)  # fmt: skip
BAD_LAST = (
    "last=a%20b", "last=a+b", "last=a%00", "last=%0d%0aX:1", "last=%C3%A9", "last=" + "a" * 2049, "last=a%26b",
    "last=a%22", "last=%3Ca%3E", "last=a&last=a", "last=a&last=b",
)  # fmt: skip
BAD_TYPES = (
    "artifactType=nope", "artifactType=/", "artifactType=a/", "artifactType=/b", "artifactType=a/b/c",
    "artifactType=a%20b/c", "artifactType=*/*", "artifactType=a/*", "artifactType=a/b;q=1", "artifactType=a/b,c/d",
    "artifactType=a/b%0d%0aX:1", "artifactType=a/b%00", "artifactType=a/%C3%A9", "artifactType=%22a/b%22",
    "artifactType=.a/b", "artifactType=" + "a" * 128 + "/b", "artifactType=a/b&artifactType=a/b",
    "artifactType=a/b&artifactType=c/d",
)  # fmt: skip
UNREADABLE = ("%ff", "a=%ff", "n=%ff", "last=%c3%28", "artifactType=%80", "&".join(["a=b"] * 100))


def _parameters() -> Iterator[Row]:
    for name in PREFIXES:
        for query in (*BAD_N, *BAD_LAST):
            yield Row(f"/v2/{name}/tags/list?{query}", *UNSUPPORTED)
        for query in BAD_TYPES:
            yield Row(f"/v2/{name}/referrers/{DIGEST}?{query}", *UNSUPPORTED)
    yield Row("/v2/app/tags/list?n=-1&ns=other.example", *UNSUPPORTED, "other.example")
    yield Row("/v2/app/tags/list?ns=other.example&last=%00", *UNSUPPORTED, "other.example")
    yield Row(f"/v2/app/referrers/{DIGEST}?artifactType=x&ns=other.example", *UNSUPPORTED, "other.example")
    for place in (*(endpoint.format("app") for endpoint in ENDPOINTS), *OTHER_PLACES):
        for query in UNREADABLE:
            yield Row(f"{place}?{query}", *UNSUPPORTED)


# --- paths --------------------------------------------------------------------------------------------------------------

BAD_PATHS_SENT = (
    # no such place
    "/", "/v1/", "/v1/search", "/v3/", "/V2/", "/v2x", "/v2/_catalog", "/v2/_oci/ext/discover",
    "/v2/app/_oci/ext/discover", "/v2/app", "/v2/app/manifests", "/v2/app/tags", "/v2/app/tags/x", "/v2/app/tags/List",
    "/v2/app/tag/list", "/v2/app/Manifests/1.0", "/v2/app/manifest/1.0", "/v2/app/blobs/uploads/", "/v2/app/referrers",
    "/token", "/sightings", "/sightings/", "/livez/x", "/healthz", "/favicon.ico", "/robots.txt",
    "/.well-known/security.txt", "/index.html", "/__dev__/fault",
    # slashes
    "//v2/", "/v2//", "///v2/app/manifests/1.0", "//app/manifests/1.0", "/v2//app/manifests/1.0",
    "/v2/app//manifests/1.0", "/v2/app/manifests//1.0", "/v2/app/manifests/1.0/", "/v2/app/manifests/",
    "/v2/app/tags/list/", f"/v2/app/referrers/{DIGEST}/", "/v2/r//app/manifests/1.0", "/livez/", "//sightings/app:1.0",
    "/sightings/app:1.0/",
    # dots
    "/v2/../v2/app/manifests/1.0", "/v2/x/../app/manifests/1.0", "/v2/./app/manifests/1.0", "/v2/app/manifests/..",
    "/v2/app/manifests/.", "/v2/app/tags/../tags/list", "/../etc/passwd", "/v2/%2e%2e/app/manifests/1.0",
    "/v2/.%2e/app/manifests/1.0", "/v2/r/../app/manifests/1.0", "/v2/..;/app/manifests/1.0", "/sightings/../v2/",
    # encodings
    "/v2/library%2Fapp/manifests/1.0", "/v2/app%2fmanifests%2f1.0", "/v2/%61pp/manifests/1.0", "/%76%32/",
    "/v2/app/manifests/1%2e0", "/v2/app/t%61gs/list", "/v2/app/manifests/1.0%253A", "/v2/app/manifests/1.0%",
    "/v2/app/manifests/1.0%3", "/v2/app/manifests/1.0%zz", "/v2/app/manifests/%u0031", "/v2/app%5cx/manifests/1.0",
    "/v2/app%3fns=ghcr.io/manifests/1.0", "/v2/app/manifests/1.0%23x", "/v2/app/manifests/1.0%3Fns=ghcr.io",
    # bytes
    "/v2/app%00/manifests/1.0", "/v2/app/manifests/1.0%00", "/v2/app/manifests/1.0%0a",
    "/v2/app%0d%0aX:1/manifests/1.0", "/v2/app/manifests/1.0%20", "/v2/app%7f/manifests/1.0",
    "/v2/app%ff/manifests/1.0", "/v2/app%c3%a9/manifests/1.0", "/v2/app\\x/manifests/1.0", "/v2/app;v=1/manifests/1.0",
    "/v2/app/manifests/1.0;v=1", "/v2/app/manifests/1+0", "/v2/app/manifests/'1'", '/v2/app/manifests/"1"',
    "/v2/<app>/manifests/1.0", "/v2/{app}/manifests/1.0", "/v2/$(id)/manifests/1.0", "/v2/`id`/manifests/1.0",
    "/v2/app|x/manifests/1.0", "/v2/app/manifests/*", "/v2/[::1]:5000/app/manifests/1.0",
    "/v2/app/manifests/1.0#fragment", "/v2/app/manifests/1.0?a=b#fragment",
    # absolute-form
    "http://ghcr.io/token", "http://127.0.0.1/", "http://127.0.0.1//v2/", "ftp://127.0.0.1/v2/",
)  # fmt: skip

NAMES = tuple(_names())
NAMESPACES = tuple(_namespaces())
REFERENCES = tuple(_references())
PARAMETERS = tuple(_parameters())
PATHS = tuple(Row(target, *NAME_UNKNOWN) for target in BAD_PATHS_SENT)
METHODS = (
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "MKCOL",
    "COPY",
    "BREW",
    "GETS",
    "X" * 20,
)

# What is no HTTP/1.1: refused by the web server itself, which knows no OCI.
NO_HTTP = (
    b"GET /v2/app/manifests/1.0", b"GET  /v2/ HTTP/1.1", b"GET * HTTP/1.1", b"GET v2/app/manifests/1.0 HTTP/1.1",
    b"get /v2/ HTTP/1.1", b"GET /v2/app/manifests/1 0 HTTP/1.1", b"GET /v2/ HTTP/3.0", b"GET /v2/ HTTPS/1.1",
    b"GET /v2/b\xc3\xbccher/manifests/1.0 HTTP/1.1", b"GET /v2/\xff/manifests/1.0 HTTP/1.1",
    b"GET /v2/" + b"a" * 20_000 + b"/manifests/1.0 HTTP/1.1", b"GET /v2/app/manifests/1.0 HTTP/1.1\r\nHost: y",
    b"GET /v2/app/manifests/1.0 HTTP/1.1\r\nContent-Length: -1",
    b"GET /v2/app/manifests/1.0 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2",
    b"GET /v2/app/manifests/1.0 HTTP/1.1\r\nTransfer-Encoding: gzip, x",
    b"GET /v2/app/manifests/1.0 HTTP/1.1\r\nA: " + b"a" * 70_000, b"GET /v2/app/manifests/1.0 HTTP/1.1\r\nA b: c",
    b"GET /v2/app/manifests/1.0 HTTP/1.1\r\nA: b\0c", b"GET /v2/app/manifests/1.0 HTTP/1.1" + b"\r\nA: b" * 1000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)  # fmt: skip


# --- the world ----------------------------------------------------------------------------------------------------------


class World:
    """The service, the registries that it could ask, and what it could have written."""

    def __init__(self, registry: FakeRegistry, dev: DevSigstore, function: Function, store: Path) -> None:
        self.registry, self.dev, self.function, self.store = registry, dev, function, store

    def recorded(self) -> list[str]:
        """Every tag that the store holds a claim or a record of."""
        if not self.store.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=30)) as db:
            return [tag for table in ("claim", "sighting") for (tag,) in db.execute(f"SELECT tag FROM {table}")]  # noqa: S608

    def happened(self) -> tuple[object, ...]:
        """What must be the same after a refused request as before it."""
        asked = self.registry.count() + len(self.registry.token_requests)
        return asked, dict(self.dev.calls), self.recorded(), sum("Traceback" in line for line in self.function.lines)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("bad")
    store = folder / "store.sqlite"
    with DevSigstore(folder) as dev, FakeRegistry(token_field="token") as registry:
        mapping = dict.fromkeys(("docker.io", "ghcr.io", "quay.io", "other.example"), registry.base_url)
        mapping["tokens.example"] = registry.token_url.rpartition("/")[0]
        environment = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{store}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps(mapping),
        }
        with Function(environment) as function:
            running = World(registry, dev, function, store)
            assert function.ask("GET", "/v2/").status == 200
            assert function.ask("GET", "/sightings/app:never").status == 404  # opens the store
            yield running
            lines = [line for line in function.lines if "Traceback" in line or "internal error" in line]
        assert not lines


def refused(answer: Answer, row: Row) -> None:
    """`Answer.code` checks the shape and the content type."""
    assert (answer.status, answer.code) == (row.status, row.code)
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.get("oci-namespace") == row.namespace
    assert answer.body.isascii()
    assert answer.message
    assert not {"www-authenticate", "retry-after", "location", "link", "tlog-uuid"} & answer.headers.keys()


def by_both_methods(world: World, row: Row) -> None:
    before = world.happened()
    answer = exchange(world.function.port, "GET", row.target)
    refused(answer, row)
    head = exchange(world.function.port, "HEAD", row.target)
    assert (head.status, head.body) == (answer.status, b"")
    changing = {"date", "connection"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in answer.headers.items() if k not in changing
    }
    assert world.happened() == before


@pytest.mark.parametrize("row", NAMES, ids=str)
def test_a_malformed_or_forbidden_name(world: World, row: Row) -> None:
    by_both_methods(world, row)


@pytest.mark.parametrize("row", NAMESPACES, ids=str)
def test_a_malformed_or_contradicting_ns(world: World, row: Row) -> None:
    by_both_methods(world, row)


@pytest.mark.parametrize("row", REFERENCES, ids=str)
def test_a_malformed_digest_or_tag(world: World, row: Row) -> None:
    by_both_methods(world, row)


@pytest.mark.parametrize("row", PARAMETERS, ids=str)
def test_a_malformed_parameter(world: World, row: Row) -> None:
    by_both_methods(world, row)


@pytest.mark.parametrize("row", PATHS, ids=str)
def test_a_path_that_is_not_there_or_a_second_spelling_of_one(world: World, row: Row) -> None:
    by_both_methods(world, row)


@pytest.mark.parametrize("method", METHODS)
def test_any_method_but_get_and_head_on_every_endpoint(world: World, method: str) -> None:
    before = world.happened()
    places = (*(endpoint.format("app") for endpoint in ENDPOINTS), *OTHER_PLACES, "/livez", "/readyz", "/nowhere")
    for place in (
        *places,
        "/v2/app/blobs/uploads/",
        "/v2/app/manifests/1.0?ns=other.example",
        "/v2/UPPER/manifests/1.0",
    ):
        for body in (b"", b"{}"):
            headers = [("Content-Length", str(len(body)))] if body else []
            answer = exchange(world.function.port, method, place, headers, body)
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
            assert answer.headers["allow"] == "GET, HEAD"
    assert world.happened() == before


@pytest.mark.parametrize("sent", NO_HTTP, ids=lambda sent: ascii(sent[:60]))
def test_what_is_no_http_is_refused_before_it_gets_here(world: World, sent: bytes) -> None:
    before = world.happened()
    head, _, _ = world.function.raw(sent + b"\r\nHost: x\r\nConnection: close\r\n\r\n").partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 (?:4[0-9]{2}|501) ", head)
    assert world.happened() == before


def test_what_is_well_formed_is_answered_and_only_a_tag_is_recorded(world: World) -> None:
    """Or else nothing above would be shown: the same requests, well formed, do all that was not to happen."""
    digest = world.registry.push("org/fine", "1.0", image("fine"), OCI)
    blob = world.registry.push_blob("org/fine", b"blob")
    for name in ("other.example/org/fine", "r/other.example/org/fine", "org/fine?ns=other.example"):
        path, _, query = name.partition("?")
        for rest, found in (
            ("manifests/1.0", 200),
            (f"manifests/{digest}", 200),
            (f"blobs/{blob}", 200),
            ("tags/list", 200),
            (f"referrers/{digest}", 200),
        ):
            answer = exchange(world.function.port, "GET", f"/v2/{path}/{rest}?{query}")
            assert (answer.status, rest) == (found, rest)
            assert answer.headers.get("oci-namespace") == ("other.example" if query else None)
    assert world.recorded() == ["other.example/org/fine:1.0"] * 2, "the claim and the record"
